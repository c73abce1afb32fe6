"""Run by Alembic, with the connection that `ledger.migrating` holds its lock on."""

from alembic import context

from ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite's DDL is transactional too, once the transaction is begun by us and not by its driver.
    transactional_ddl=True,
)
context.run_migrations()
