"""Who made the token through which a decision was taken: it is signed with the rest."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column; decisions from before name nobody."""
    op.add_column("decisions", sa.Column("token_made_by", sa.String(255)))
