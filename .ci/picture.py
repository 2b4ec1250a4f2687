"""Runs `arbstore demo`, and draws what it prints as docs/images/demo.svg: `make picture`."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "demo.svg"
LEFT_OUT = "The newest opportunities"  # from here on: the rest of the output would double the height
THEME = TerminalTheme(
    (23, 28, 38),
    (214, 222, 235),
    [
        *((23, 28, 38), (239, 107, 115), (142, 207, 141), (229, 192, 123)),
        *((120, 170, 240), (198, 146, 233), (127, 219, 202), (214, 222, 235)),
    ],
)
# As rich's own, without the font that it loads from a server.
FORMAT = """<svg viewBox="0 0 {terminal_width} {terminal_height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; white-space: pre; }}
{styles}
</style>
<defs>{lines}</defs>
<rect fill="#171c26" width="{terminal_width}" height="{terminal_height}" rx="10"/>
<g transform="translate(14, 12)">{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def main() -> None:
    """Write the picture."""
    program = Path(sys.executable).with_name("arbstore")
    environment = {**os.environ, "FORCE_COLOR": "1"}  # as in a terminal
    done = subprocess.run([program, "demo"], env=environment, capture_output=True, text=True, check=True)  # noqa: S603 # our own program
    kept, found, _ = done.stdout.partition(LEFT_OUT)
    if not found:
        sys.exit(f"the demo no longer prints {LEFT_OUT!r}: say in {Path(__file__).name} where the picture should end")
    lines = [line.rstrip() for line in kept.splitlines()]
    shown = Text.assemble(("$ ", "bold green"), ("arbstore demo\n", "bold"))
    shown.append_text(Text.from_ansi("\n".join(lines)))
    shown.rstrip()
    shown.append("\n\n…", "dim")
    shown.highlight_regex(r"\b(BTC|DOGE|ETH|SOL|XRP)/USDT\b", "cyan")
    shown.highlight_regex(r"[\d,]+(?= (book tickers|trades|rows a second|times a spread))", "bold green")
    console = Console(record=True, width=max(map(len, shown.plain.splitlines())), file=io.StringIO())
    console.print(shown)
    picture = console.export_svg(code_format=FORMAT, theme=THEME, unique_id="demo")
    PICTURE.write_text(_fitted(picture))


def _fitted(picture: str) -> str:
    """Return the picture with its frame around the text: rich leaves room for a title and buttons."""
    right = max(
        float(x) + float(length) for x, length in re.findall(r'x="([\d.]+)"[^>]*textLength="([\d.]+)"', picture)
    )
    bottom = max(float(y) for y in re.findall(r'<text [^>]*y="([\d.]+)"', picture))
    width, height = f"{right + 28:.0f}", f"{bottom + 30:.0f}"
    picture = re.sub(r'viewBox="0 0 \S+ \S+"', f'viewBox="0 0 {width} {height}"', picture)
    return re.sub(r'width="[\d.]+" height="[\d.]+" rx', f'width="{width}" height="{height}" rx', picture, count=1)


if __name__ == "__main__":
    main()
