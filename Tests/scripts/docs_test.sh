#!/usr/bin/env bash
# Walks the documents: each file, make target, setting, route and metric that they name exists, and each function of the flows' steps, and each line of the log that the runbook quotes. Reads text alone: nothing is built or started.
# Ends with `N passed, N failed`; exit status 1 when something failed.
# shellcheck disable=SC2016 # backticks are what the patterns look for
set -uo pipefail

REPOSITORY=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
cd -- "$REPOSITORY" || exit 1
export LC_ALL=C.UTF-8

mapfile -t documents < <(git ls-files -- '*.md' | grep -v '^CHANGELOG.md$')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=../Tests/scripts/lib/verdicts.sh
source "./Tests/scripts/lib/verdicts.sh"

# absent FAILURES WHAT: the file FAILURES has one line for each name that does not exist.
absent() {
    local count
    count=$(wc -l <"$1")
    sort -u "$1" | head -n 40 >"$work/absent"
    verdict "$2" "$work/absent" "$count"
}

# named WHAT MINIMUM: a document that names nothing would pass every check; so few names mean that the pattern is wrong.
named() {
    local count
    count=$(sort -u "$work/names" | wc -l)
    if ((count < $2)); then printf '%s: only %s found, at least %s expected\n' "$1" "$count" "$2" >>"$work/failures"; fi
}

begin() { : >"$work/names" && : >"$work/failures"; }

# Where a name can have its meaning: what is built, run or tested.
sources=(Sources Benchmarks Tools scripts Tests Makefile Package.swift)

# --- One table says one thing of a name, and no heading comes twice below another. Texts that were put together from two hands have such doubles.
begin
while IFS= read -r document; do
    awk -v document="$document" '
        /^#/ { level = index($0, " ") - 1; if (level <= 2) split("", headings); if (level > 1 && $0 in headings) print "fail " document ": twice: " $0; headings[$0]; print "name " $0 }
        !/^\|/ { split("", cells) }
        /^\| `/ { split($0, part, " \\| "); if (part[1] in cells) print "fail " document ": two rows of one table: " part[1]; cells[part[1]] }
    ' "$document"
done < <(git ls-files -- '*.md') >"$work/found"
sed -n 's/^name //p' "$work/found" >"$work/names"
sed -n 's/^fail //p' "$work/found" >"$work/failures"
named headings 100
absent "$work/failures" "no table has two rows for one name, no heading comes twice"

# --- Links to files, and headings in them.
begin
for document in "${documents[@]}"; do
    folder=$(dirname -- "$document")
    while IFS= read -r target; do
        case $target in http://* | https://* | mailto:*) continue ;; esac
        printf '%s\n' "$target" >>"$work/names"
        file=${target%%#*} heading=
        if [[ $target == *'#'* ]]; then heading=${target#*#}; fi
        if [[ -n $file && ! -e $folder/$file ]]; then
            printf '%s: %s\n' "$document" "$target" >>"$work/failures"
        elif [[ -n $heading ]]; then
            # A heading's anchor: lower case, hyphens for blanks, no other signs.
            page=$document
            if [[ -n $file ]]; then page=$folder/$file; fi
            if ! sed -n 's/^#\{1,6\} //p' "$page" | tr '[:upper:] ' '[:lower:]-' | sed 's/[^[:alnum:]_-]//g' | grep -qxF -- "$heading"; then
                printf '%s: no heading for %s\n' "$document" "$target" >>"$work/failures"
            fi
        fi
    done < <(grep -oE '\]\([^) ]+\)' "$document" | sed 's/^](//; s/)$//')
done
named links 10
absent "$work/failures" "every link of a document leads somewhere"

# --- Files between backticks.
begin
for document in "${documents[@]}"; do
    while IFS= read -r path; do
        printf '%s\n' "$path" >>"$work/names"
        file=${path%%:*}
        # A pattern names those that it matches.
        if ! compgen -G "${file%/}" >/dev/null; then printf '%s: %s\n' "$document" "$path" >>"$work/failures"; fi
    done < <(grep -oE '`(Sources|Tests|Benchmarks|Tools|docs|scripts|\.ci)/[^` …<]+`' "$document" | tr -d '\140')
done
named files 20
absent "$work/failures" "every file that a document names is there"

# --- The steps of the flows: a file below Sources, and behind it functions that it has.
begin
file=
while IFS= read -r token; do
    if [[ $token == *.swift ]]; then
        printf '%s\n' "$token" >>"$work/names"
        file=Sources/$token
        if [[ ! -e $file ]]; then printf 'docs/architecture.md: %s\n' "$token" >>"$work/failures" && file=; fi
    elif [[ -n $file && $token =~ ^[a-z][A-Za-z]+$ ]] && ! grep -qwE -- "func $token" "$file"; then
        printf 'docs/architecture.md: %s has no function %s\n' "$file" "$token" >>"$work/failures"
    fi
done < <(sed -n '/^## The five flows/,/^## Where a change goes/p' docs/architecture.md | grep -oE '`[^`]+`' | tr -d '\140')
named "files of the flows' steps" 20
absent "$work/failures" "every step of a flow names a file, and functions that it has"

# --- The lines of the log that the runbook quotes, up to where a figure stands in them.
begin
while IFS= read -r line; do
    printf '%s\n' "$line" >>"$work/names"
    if ! grep -rqF -- "$line" Sources; then printf 'docs/operations.md: nothing logs: %s\n' "$line" >>"$work/failures"; fi
done < <(sed -n '/^## Runbook/,/^## Settings/p' docs/operations.md | sed '/^ *```/,/^ *```$/d' | tr '\n' ' ' | tr -s ' ' |
    sed 's/`[^`]*`//g; s/\*\*[^*]*\*\*//g' | grep -oE '\*[^*]+\*' | sed 's/^\*//; s/\*$//; s/ N .*//' | grep -E '.{20}')
named "lines of the log" 25
absent "$work/failures" "every line of the log that the runbook quotes is written by a server"

# --- The tests that the faults' tables name.
begin
while IFS= read -r name; do
    printf '%s\n' "$name" >>"$work/names"
    suite=${name%%/*}
    if ! grep -rqwE -- "(struct|class|extension) ([A-Za-z]+[.])*${suite##*.}" Tests || ! grep -rqwE -- "func ${name#*/}" Tests; then
        printf 'docs/faults.md: %s\n' "$name" >>"$work/failures"
    fi
done < <(grep -oE '`[A-Z][A-Za-z.]*/[a-z][A-Za-z0-9]+`' docs/faults.md | tr -d '\140' | sort -u)
named "tests of the faults' tables" 20
absent "$work/failures" "every test that the faults' tables name is there"

# --- Make targets, alone or in commands.
begin
for document in "${documents[@]}"; do
    while IFS= read -r target; do
        printf '%s\n' "$target" >>"$work/names"
        if ! grep -qE "^$target:" Makefile; then printf '%s: make %s\n' "$document" "$target" >>"$work/failures"; fi
    done < <(grep -oE '(^|`|&& )make [a-z][a-z-]*' "$document" | sed 's/.*make //')
done
named "make targets" 8
absent "$work/failures" "every make target that a document names is one"

# --- Settings, error codes and states: words in capitals between backticks.
begin
for document in "${documents[@]}"; do
    while IFS= read -r word; do
        printf '%s\n' "$word" >>"$work/names"
        if ! grep -rqwF -- "$word" "${sources[@]}"; then printf '%s: %s\n' "$document" "$word" >>"$work/failures"; fi
    done < <(grep -oE '`[A-Z][A-Z0-9]*(_[A-Z0-9]+)+(=[^`]*)?`' "$document" | tr -d '\140' | sed 's/=.*//' | sort -u)
done
named settings 40
absent "$work/failures" "every setting and code that a document names is known to the sources"

# The other way round: a setting that is read is in the list of its server, or in the document on it.
begin
while IFS= read -r word; do
    printf '%s\n' "$word" >>"$work/names"
    if ! grep -qwF -- "$word" "${documents[@]}"; then printf 'undocumented: %s\n' "$word" >>"$work/failures"; fi
done < <({
    # The name stands in a line of its own, or in the line of the call.
    grep -rhoE '^ +"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+",$' Sources --include='*Settings*.swift' --include='*Configuration*.swift'
    grep -rhoE 'reader\.[A-Za-z]+\("[A-Z][A-Z0-9]*(_[A-Z0-9]+)*"' Sources --include='*.swift' | grep -oE '"[A-Z0-9_]+"'
} | tr -d ' ",' | sort -u)
named "settings that are read" 50
absent "$work/failures" "every setting that a server reads is in a document"

# --- Routes, as the OpenAPI documents of the servers have them.
begin
grep -ohE '^ +"/[^"]*": \{' Sources/*/HTTP/openapi.json | grep -oE '/[^"]*' | sort -u >"$work/routes"
for document in "${documents[@]}"; do
    # Its rows are requests that are wrong on purpose; and in the other one, those of other programs.
    case $document in docs/http-edge.md | docs/compare.md) continue ;; esac
    while IFS= read -r route; do
        printf '%s\n' "$route" >>"$work/names"
        path=${route%%\?*}
        path=${path#/order-service}
        path=${path#/product-service}
        # A number stands for the id that it is an example of; three dots for what the reader knows.
        pattern=$(sed -E 's/[.]$//; s#/[0-9]+(/|$)#/[^/]+\1#g; s#\{[^}]*\}#[^/]+#g; s#…#.*#g' <<<"$path")
        if ! grep -qxE -- "$pattern" "$work/routes"; then printf '%s: %s\n' "$document" "$route" >>"$work/failures"; fi
    done < <(grep -oE '`?(GET|HEAD|POST|PATCH|PUT|DELETE) /[^` ,;)"|]*' "$document" | grep -oE '/.*' | sort -u)
done
named routes 8
absent "$work/failures" "every route that a document names is in an OpenAPI document"

# --- Metrics.
begin
for document in "${documents[@]}"; do
    while IFS= read -r metric; do
        printf '%s\n' "$metric" >>"$work/names"
        base=$(sed -E 's/_(bucket|count|sum|max)$//' <<<"$metric")
        # The engine's names are registered without the prefix that all of them get, those of its lanes without a longer one.
        bare=${metric#stockgate_}
        if ! grep -rqwE -- "$metric|$base" Sources Benchmarks scripts && ! grep -rqF -e "(\"$bare\"," -e "(\"${bare#lane_}\"," Sources; then printf '%s: %s\n' "$document" "$metric" >>"$work/failures"; fi
    done < <(grep -oE '`(stockgate|orders?|outbox|http|process|redis|resilience4j|broker)_[a-z0-9_]+(\{[^`]*\})?`' "$document" | tr -d '\140' | sed 's/{.*//' | sort -u)
done
named metrics 15
absent "$work/failures" "every metric that a document names is exposed"

begin
page=Sources/ServerKit/Dashboard/dashboard.html
while IFS= read -r metric; do
    printf '%s\n' "$metric" >>"$work/names"
    bare=${metric#stockgate_}
    # The page reads names as they are exposed, with the prefix that all of them get.
    if [[ $metric != stockgate_* && $metric != process_* ]]; then
        printf '%s: %s\n' "$page" "$metric" >>"$work/failures"
    elif ! grep -rqw --include='*.swift' -e "$metric" Sources && ! grep -rqF --include='*.swift' -e "(\"$bare\"," -e "(\"${bare#lane_}\"," Sources; then
        printf '%s: %s\n' "$page" "$metric" >>"$work/failures"
    fi
done < <(grep -oE '\b(stockgate|process|orders?|outbox)_[a-z0-9_]+' "$page" | sort -u)
named metrics 20
absent "$work/failures" "every metric that the dashboard shows is exposed"

verdicts
