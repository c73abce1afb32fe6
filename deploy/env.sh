#!/bin/sh
# Writes .env, with secrets of its own, for docker-compose.yml. One that exists is never changed.
set -eu

target=${1:-.env}

hex() { head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

password=$(hex)
ledger=$(hex)
token=$(hex)
key=$(head -c 32 /dev/urandom | base64 | tr -d '\n')
if [ ${#password} -ne 48 ] || [ ${#ledger} -ne 48 ] || [ ${#token} -ne 48 ] || [ ${#key} -ne 44 ]; then
    echo "No random bytes can be had from /dev/urandom." >&2
    exit 1
fi

secrets="RUNLANE_ENCRYPTION_KEYS=$(date -u +%Y-%m-%d):$key
RUNLANE_CODEC_TOKEN=$token
POSTGRES_PASSWORD=$password
LEDGER_PASSWORD=$ledger"

if [ -e "$target" ] || [ -L "$target" ]; then
    missing=
    for line in $secrets; do
        grep -q "^${line%%=*}=." "$target" || missing="$missing${missing:+ }$line"
    done
    if [ -n "$missing" ]; then
        echo "$target exists and is never changed by this command. It lacks these; add them:" >&2
        printf '%s\n' $missing >&2
        exit 1
    fi
    echo "$target exists and is left as it is."
    exit 0
fi

draft=$(mktemp "$target.XXXXXX")
trap 'rm -f "$draft"' EXIT
cat >"$draft" <<TEXT
# For docker-compose.yml; made by make env. docs/operations.md says what else can stand here.
# Keep a copy apart from the database's backups: what these keys encrypted, nothing else decrypts.

# The simulator of: docker compose --profile demo up. Put your upstream's URL and key here instead.
RUNLANE_UPSTREAM_URL=http://simulator:8089/v1
RUNLANE_UPSTREAM_API_KEY=

$secrets
TEXT
# A link, for it fails where a file has come up meanwhile, and is never half a file.
ln "$draft" "$target"
echo "Wrote $target, which you alone can read. It names the simulator as upstream: put yours in. Keep a copy of it."
