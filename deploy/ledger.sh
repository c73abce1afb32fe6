#!/bin/sh
# Makes the ledger's role and database in PostgreSQL, or brings the role to its present password.
# Runs in PostgreSQL's own image before each start of the workers; PGHOST and its kin say where.
set -eu

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --dbname postgres <<'SQL'
\getenv password LEDGER_PASSWORD
SELECT 'CREATE ROLE runlane LOGIN'
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'runlane') \gexec
ALTER ROLE runlane PASSWORD :'password';
SELECT 'CREATE DATABASE runlane OWNER runlane'
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'runlane') \gexec
-- Whoever has the ledger's password gets into no other database of this server.
SELECT format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', datname)
    FROM pg_database WHERE datallowconn \gexec
SQL
