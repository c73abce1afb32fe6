"""What all lanes of a batch share: the turns of their requests, a pause of its upstream, a cost."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the table, and add the columns."""
    op.create_table(
        "batch_paces",
        sa.Column("batch_id", sa.String(255), nullable=False),
        sa.Column("next_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("batch_id"),
    )
    op.add_column("batches", sa.Column("held_until", sa.BigInteger, nullable=True))
    op.add_column("batches", sa.Column("cost_limit", sa.String(64), nullable=True))
