#!/bin/sh
# Creates Temporal's two databases in PostgreSQL, or brings them to the version of this image. Runs
# in temporalio/admin-tools before each start of the server; SQL_HOST and its kin say where.
set -eu

schemas=${SCHEMAS:-/etc/temporal/schema/postgresql/v12}

update() { # database, directory
    temporal-sql-tool --db "$1" create
    temporal-sql-tool --db "$1" setup-schema -v 0.0
    temporal-sql-tool --db "$1" update-schema -d "$schemas/$2/versioned"
}

update temporal temporal
update temporal_visibility visibility
