"""Alembic's entry: the work is in `arbstore.migrations`, where the command line finds it too."""

from arbstore import migrations

migrations.run()
