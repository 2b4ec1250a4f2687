"""The reference cache keeps answers about exchanges and symbols in the process for a while.

Each rule has a test in tests/test_cache.py. Answers are immutable, and "there is none" is an answer too. A hit awaits
nothing. A commit drops the answers that its transaction changed. Until then, the session that wrote reads past the
cache. An answer is not kept if it was read before a change, or in a transaction that reads an older snapshot.
Concurrent misses of one key make one query.

The key of a symbol is its id, the key of a pair a text, and the key of a list a tuple. Ids and pairs are looked up most
often, and Python computes the hash of a tuple anew for each look-up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, MutableMapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from cachetools import TTLCache
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from arbstore.errors import ValidationError, translated
from arbstore.records import Symbol, SymbolType
from arbstore.settings import Settings

T = TypeVar("T")
Query: TypeAlias = Callable[[], Awaitable[tuple[T, bool]]]

# Keys of Session.info.
_PENDING = "arbstore.pending"  # the changes that this session has not committed yet
_COMMITTING = "arbstore.committing"  # its commit has begun
_NOTHING: Any = object()


class CacheStats(NamedTuple):
    """Counts since the cache was made. `size` is the number of answers it holds now."""

    hits: int
    misses: int
    queries: int
    size: int
    max_size: int

    @property
    def hit_ratio(self) -> float:
        """Hits per lookup; 0 before the first lookup."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0


class Answers:
    """The answers about one kind of thing: exchanges, or symbols."""

    def __init__(self, size: int, ttl: float, missing_ttl: float) -> None:
        """Keep at most `size` answers for `ttl` seconds, and as many "there is none" for `missing_ttl`."""
        self._found: TTLCache[Hashable, Any] = TTLCache(size, ttl)
        self._missing: TTLCache[Hashable, None] = TTLCache(size, missing_ttl)
        self._loading: dict[Hashable, asyncio.Future[None]] = {}
        self._generation = 0
        self._hits = self._misses = self._queries = 0

    def kept(self, session: AsyncSession, key: Hashable) -> Any:
        """Return the kept answer to `key`, or None: then call `load`. A session that has written always gets None."""
        if _PENDING in session.sync_session.info:
            return None
        try:
            answer = self._found[key]
        except KeyError:
            return None
        self._hits += 1
        return answer

    async def get(self, session: AsyncSession, key: Hashable, query: Query[T]) -> T:
        """Return the answer to `key`: the kept one, or that of `query`, which runs in `session`."""
        answer: T | None = self.kept(session, key)
        return await self.load(session, key, query) if answer is None else answer

    async def load(self, session: AsyncSession, key: Hashable, query: Query[T]) -> T:
        """Return the answer to a `key` whose answer is not `kept`, and keep it.

        `query` returns the answer, and whether it is the newest committed one: another is not kept.
        """
        if _PENDING in session.sync_session.info:
            return (await query())[0]
        if key in self._missing:
            self._hits += 1
            return cast("T", None)
        self._misses += 1
        while True:
            if (loading := self._loading.get(key)) is not None:
                await asyncio.shield(loading)
            else:
                # The task that loads needs its connection first: those that wait for it may hold all the others.
                with translated():
                    await session.connection()
            kept: T = self._found.get(key, _NOTHING)
            if kept is not _NOTHING or key in self._missing:
                return cast("T", None) if kept is _NOTHING else kept
            if key not in self._loading:
                return await self._load(key, query)

    async def _load(self, key: Hashable, query: Query[T]) -> T:
        done = self._loading[key] = asyncio.get_running_loop().create_future()
        generation = self._generation
        self._queries += 1
        try:
            answer, is_current = await query()
            if is_current:
                self.put(key, answer, generation)
            return answer
        finally:
            if self._loading.get(key) is done:
                del self._loading[key]
            done.set_result(None)

    def _keep(self, key: Hashable, answer: Any) -> None:
        kept: MutableMapping[Hashable, Any] = self._missing if answer is None else self._found
        kept[key] = answer

    @property
    def generation(self) -> int:
        """A count of invalidations. An answer whose reading began at an older one is not kept."""
        return self._generation

    def put(self, key: Hashable, answer: object, generation: int) -> None:
        """Keep an answer whose reading began at `generation`, unless answers were invalidated since."""
        if generation == self._generation:
            self._keep(key, answer)

    def invalidate(self, keys: Iterable[Hashable] | None = None) -> None:
        """Drop the answers to these keys, or all of them. Answers that are being loaded will not be kept."""
        self._generation += 1
        self._loading.clear()
        if keys is None:
            self._found.clear()
            self._missing.clear()
            return
        for key in keys:
            self._found.pop(key, None)
            self._missing.pop(key, None)

    def stats(self) -> CacheStats:
        """Return the counts."""
        size = len(self._found) + len(self._missing)
        return CacheStats(self._hits, self._misses, self._queries, size, int(self._found.maxsize))


class ReferenceCache:
    """The answers about exchanges and about symbols, shared by all sessions of a Database."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Take sizes and lifetimes from the settings; without them, the defaults."""
        given = settings or Settings.model_construct()
        self.exchanges = Answers(given.cache_exchanges, given.cache_ttl, given.cache_missing_ttl)
        self.symbols = Answers(given.cache_symbols, given.cache_ttl, given.cache_missing_ttl)

    def invalidate(self, kind: str | None = None, keys: Iterable[Hashable] | None = None) -> None:
        """Drop the answers to `keys` of one kind ("exchanges" or "symbols"), all of one kind, or everything."""
        for name, answers in self._kinds().items():
            if kind in (None, name):
                answers.invalidate(keys)

    def stats(self) -> dict[str, CacheStats]:
        """Return the counts of each kind."""
        return {name: answers.stats() for name, answers in self._kinds().items()}

    def _kinds(self) -> dict[str, Answers]:
        return {"exchanges": self.exchanges, "symbols": self.symbols}

    def reads_past(self, session: AsyncSession) -> bool:
        """Whether the session has written, so that its answers must not be kept for others."""
        return _PENDING in session.sync_session.info

    def changed(self, session: AsyncSession, answers: Answers, keys: Iterable[Hashable]) -> None:
        """Note that the session changed these keys. It reads past the cache now; its commit drops the answers."""
        sync = session.sync_session
        if _PENDING not in sync.info:
            sync.info[_PENDING] = []
            if not event.contains(sync, "after_commit", _drop_changed):
                event.listen(sync, "before_commit", _note_commit)
                event.listen(sync, "after_commit", _drop_changed)
                event.listen(sync, "after_transaction_end", _forget_changed)
        sync.info[_PENDING].append((answers, frozenset(keys)))


def _note_commit(session: Session) -> None:
    if not session.in_nested_transaction():
        session.info[_COMMITTING] = True


def _drop_changed(session: Session) -> None:
    if session.in_nested_transaction():
        return  # only a savepoint ended: others do not see its changes yet
    changed: list[tuple[Answers, frozenset[Hashable]]] = session.info.pop(_PENDING, [])
    for answers, keys in changed:
        answers.invalidate(keys)


def _forget_changed(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is not None:
        return
    if session.info.pop(_COMMITTING, False):
        _drop_changed(session)  # a commit that was interrupted may have reached the server
    session.info.pop(_PENDING, None)


class Pair(NamedTuple):
    """A pair on one exchange. `symbol_type` None means any type, `expiry` None a contract without one."""

    exchange_id: int
    base: str
    quote: str
    symbol_type: SymbolType | None
    expiry: datetime | None
    key: str


@lru_cache(maxsize=2**15)
def pair_of(exchange_id: int, base: str, quote: str, symbol_type: str | None, expiry: datetime | None) -> Pair:
    """Return the pair with these names, in any spelling of case and blanks. `expiry` must be in UTC.

    Raises ValueError for an unknown `symbol_type`, ValidationError for a name that is not a text.
    """
    kind = None if symbol_type is None else SymbolType(symbol_type.upper())
    base, quote = ticker(base, "base"), ticker(quote, "quote")
    key = f"{exchange_id:d} {base} {quote} {kind} {expiry}"
    return Pair(exchange_id, base, quote, kind, expiry, key)


def ticker(name: str, field: str) -> str:
    """Return the name of an asset in capitals, without blanks around it; raise ValidationError for another type."""
    if not isinstance(name, str):
        raise ValidationError(f"must be a text such as BTC, is {name!r}", field=field)
    return name.strip().upper()


def spoken(pair: Pair) -> str:
    """Return the pair as people write it."""
    return " ".join(str(part) for part in (f"{pair.base}/{pair.quote}", pair.symbol_type, pair.expiry) if part)


def skipped(pair: Pair, symbols: Iterable[Symbol]) -> list[int]:
    """Return the ids of the pair's symbols that a look-up skips.

    These are inactive symbols, and dated contracts when no expiry was given.
    """
    return [
        symbol.id
        for symbol in symbols
        if pair.symbol_type in (None, symbol.symbol_type) and pair.expiry in (None, symbol.expiry)
        if not symbol.is_active or (symbol.expiry is not None and pair.expiry is None)
    ]


def keys_of(symbol: Symbol) -> list[Hashable]:
    """Return the keys whose answer is, or was, this symbol."""
    pair = (symbol.symbol_base, symbol.symbol_quote, symbol.symbol_type, symbol.expiry)
    return [symbol.id, *_pair_keys(symbol.exchange_id, *pair)]


def keys_of_row(exchange_id: int, row: Mapping[str, Any]) -> list[Hashable]:
    """Return the keys whose answers change when this row is added; its id is not known yet."""
    pair = (row["symbol_base"], row["symbol_quote"], row["symbol_type"], row["expiry"])
    return [*_pair_keys(exchange_id, *pair), *keys_of_lists(exchange_id)]


def keys_of_lists(exchange_id: int) -> list[Hashable]:
    """Return the keys of the lists of an exchange's symbols."""
    return [list_key(exchange_id, active_only=active) for active in (True, False)]


def list_key(exchange_id: int, *, active_only: bool) -> Hashable:
    """Return the key of the list of an exchange's symbols, or of its active ones."""
    return (exchange_id, active_only)


def _pair_keys(
    exchange_id: int, base: str, quote: str, symbol_type: SymbolType, expiry: datetime | None
) -> list[Hashable]:
    # The same objects as in `pair_of`: Python finds them without comparing the texts.
    return [pair_of(exchange_id, base, quote, kind, expiry).key for kind in (None, symbol_type)]
