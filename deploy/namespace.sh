#!/bin/sh
# Creates the namespace and Runlane's search attributes; what is there stays as it is. `temporal`
# reads TEMPORAL_ADDRESS itself.
set -eu

namespace=${TEMPORAL_NAMESPACE:-default}
retention=${TEMPORAL_RETENTION:-30d}
attributes="RunlaneStatus=Keyword RunlaneThread=Keyword RunlaneAssistant=Keyword
    RunlaneCreated=Datetime RunlaneBlocked=Keyword RunlaneOwner=Keyword"

# A new namespace is known to all parts of the server after ten seconds or so.
persist() {
    tries=${TRIES:-60}
    until said=$("$@" 2>&1); do
        tries=$((tries - 1))
        if [ "$tries" -le 0 ]; then
            printf '%s\n' "$said" >&2
            exit 1
        fi
        sleep 1
    done
}

persist temporal operator cluster health

if found=$(temporal operator namespace describe --namespace "$namespace" 2>&1); then
    echo "Namespace $namespace exists."
else
    case $found in
    *"is not found"*) ;;
    *)
        printf '%s\n' "$found" >&2
        exit 1
        ;;
    esac
    persist temporal operator namespace create --namespace "$namespace" --retention "$retention"
    echo "Namespace $namespace created; it remembers ended runs for $retention."
fi

set --
query=
for attribute in $attributes; do
    name=${attribute%=*}
    type=${attribute#*=}
    set -- "$@" --name "$name" --type "$type"
    value='-'
    [ "$type" = Datetime ] && value=1970-01-01T00:00:00Z
    query="$query${query:+ AND }$name = '$value'"
done
persist temporal operator search-attribute create --namespace "$namespace" "$@"
# Workers ask the same before they start.
persist temporal workflow count --namespace "$namespace" --query "$query"
echo "Search attributes are registered."
