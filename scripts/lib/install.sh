# shellcheck shell=bash
# What the machine must have. Looks for the files, not in the package database, so that other ways to install them count as well.

# package:what it must bring. A bare word is a command, a path may hold a pattern.
readonly NEEDED=(
    redis-server:redis-server
    'postgresql:/usr/lib/postgresql/*/bin/initdb'
    rabbitmq-server:/usr/lib/rabbitmq/bin/rabbitmq-server
    nginx:nginx
    'libhiredis-dev:/usr/include/hiredis/hiredis.h'
    'libpq-dev:/usr/include/postgresql/libpq-fe.h'
    'librabbitmq-dev:/usr/include/amqp.h'
    pkg-config:pkg-config
    curl:curl
    jq:jq
)

# What a caller needs besides, in the same form.
ALSO_NEEDED=()

# Sets MISSING to the packages that are not there.
missing_packages() { missing_of "${NEEDED[@]}" "${ALSO_NEEDED[@]}"; }

# missing_of PACKAGE:PROBE…: likewise, of these.
missing_of() {
    local need probe
    MISSING=()
    for need in "$@"; do
        probe=${need#*:}
        if [[ $probe == /* ]]; then
            compgen -G "$probe" >/dev/null || MISSING+=("${need%%:*}")
        else
            type -P "$probe" >/dev/null || MISSING+=("${need%%:*}")
        fi
    done
}

install_packages() {
    local policy=/usr/sbin/policy-rc.d ours=
    missing_packages
    ((${#MISSING[@]})) || return 0
    if ((EUID != 0)); then
        warn "missing: ${MISSING[*]}. Run this, then try again:"
        say "sudo apt-get update && sudo apt-get install -y --no-install-recommends ${MISSING[*]}" >&2
        exit 1
    fi
    type -P apt-get >/dev/null || die "missing: ${MISSING[*]}, and there is no apt-get to install them with"
    say "installing ${MISSING[*]}"
    # Debian starts servers as it installs them. This stack has its own: the policy forbids it while we install.
    if [[ ! -e $policy ]]; then
        ours=1
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
    fi
    DEBIAN_FRONTEND=noninteractive apt-get update -qq || die "apt-get update failed"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${MISSING[@]}" >/dev/null ||
        die "apt-get could not install ${MISSING[*]}"
    if [[ -n $ours ]]; then
        rm -f $policy
        trap - EXIT
    fi
    missing_packages
    ((${#MISSING[@]} == 0)) || die "still missing after the installation: ${MISSING[*]}"
}

# Swift 6.2 or later, for what is built.
check_swift() {
    local line
    type -P swift >/dev/null || die "swift is not installed, or not in PATH: Swift 6.2 or later is needed (see swift.org/install)"
    line=$(swift --version 2>/dev/null) || die "swift --version fails: the Swift installation is broken"
    if [[ $line =~ Swift\ version\ ([0-9]+)\.([0-9]+) ]]; then
        if ((BASH_REMATCH[1] * 1000 + BASH_REMATCH[2] >= 6002)); then return 0; fi
        die "Swift ${BASH_REMATCH[1]}.${BASH_REMATCH[2]} is too old: 6.2 or later is needed"
    fi
    die "cannot tell the version of swift from: ${line%%$'\n'*}"
}

command_install() {
    install_packages
    check_swift
}
