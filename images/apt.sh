#!/bin/sh
# Installs Debian packages in a build stage: apt.sh NAME... or apt.sh -f LIST (# starts a comment).
# What the build machine needs to reach Debian comes as secrets (see build.sh), which no layer keeps.
set -eu
secrets=/run/secrets/echelon
if [ -f $secrets/apt.conf ]; then
  APT_CONFIG=$secrets/apt.conf
  export APT_CONFIG
fi
# shellcheck disable=SC2046  # names are words
[ "$1" != -f ] || set -- $(sed -e 's/#.*//' "$2")
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$@" > /tmp/apt.log 2>&1 || { tail -n 5 /tmp/apt.log >&2; exit 1; }
rm -f /tmp/apt.log
