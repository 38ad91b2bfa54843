#!/usr/bin/env bash
# Build the service's image without Docker, run it, and check that it works.
#
#   docker/check-image.sh build cpu|gpu            build on a base made here; print the sizes
#   docker/check-image.sh run MODEL                run it as a container would ("": the embedded model);
#                                                  DEVICE=openvino or cpu pins the engine
#
# Needs root, buildah and debootstrap (Debian packages), and access to the package registries of pip
# and debootstrap. WORK is the folder for images; BUILD_OPTIONS goes to `buildah bud`
# (for example volumes with certificates or a pip.conf). docker/README.md says what this proves.
set -euo pipefail
cd "$(dirname "$0")/.."
WORK=${WORK:-/var/tmp/yolox-check-image}
FLAVOUR=${FLAVOUR:-cpu}
BASE=localhost/python:3.13-slim-stand-in
PORT=18000
mkdir -p "$WORK"

bb() { buildah --root "$WORK/store" --runroot "$WORK/run" --storage-driver vfs "$@"; }

# Debian with its own Python 3.13 replaces python:3.13-slim-trixie, so that no image registry is needed.
make_base() {
  bb inspect "$BASE" >/dev/null 2>&1 && return
  [ -e "$WORK/base/usr/bin/python3" ] || debootstrap --variant=minbase \
    --include=python3,python3-venv,python3-pip,ca-certificates trixie "$WORK/base" >"$WORK/debootstrap.log"
  ln -sf /usr/bin/python3 "$WORK/base/usr/local/bin/python"
  local rootfs="$WORK/base"
  rm -rf "$rootfs"/var/lib/apt/lists/* "$rootfs"/var/cache/apt/* "$rootfs"/usr/share/{doc,info,man,locale}/*
  tar -C "$rootfs" --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' -cf "$WORK/base.tar" .
  local container
  container=$(bb from scratch)
  bb add "$container" "$WORK/base.tar" / >/dev/null
  bb config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  bb commit --quiet "$container" "$BASE" >/dev/null
  bb rm "$container" >/dev/null
}

megabytes() { du -sb "$@" 2>/dev/null | awk '{sum += $1} END {printf "%.0f MB\n", sum / 1e6}'; }

build() {
  local flavour=$1 image="localhost/yolox-serve:$1" started=$SECONDS container root
  make_base
  # shellcheck disable=SC2086 # several options in one variable
  bb bud --isolation chroot --format docker --network host --build-arg PYTHON_IMAGE="$BASE" \
    --build-arg FLAVOUR="$flavour" ${BUILD_OPTIONS:-} --ignorefile .dockerignore \
    -f docker/service.Dockerfile -t "$image" . >"$WORK/build-$flavour.log" 2>&1 \
    || { tail -20 "$WORK/build-$flavour.log"; return 1; }
  echo "built in $((SECONDS - started)) s"
  container=$(bb from "$image")
  root=$(bb mount "$container")
  echo "unpacked:      $(megabytes "$root")"
  echo "  dependencies $(megabytes "$root/opt/venv")"
  echo "  application  $(megabytes "$root/opt/app")"
  echo "  base         $(megabytes "$root" --exclude=venv --exclude=app)"
  for tool in pip gcc cc g++ make; do
    if chroot "$root" /usr/bin/env PATH=/opt/venv/bin sh -c "command -v $tool" 2>/dev/null; then
      echo "a $tool in the environment"; return 1
    fi
  done
  bb inspect --type image --format '{{.Docker.Config.User}} {{.Docker.Config.Entrypoint}} {{.Docker.Config.StopSignal}}
{{range $name, $value := .Docker.Config.Labels}}{{$name}}={{$value}}
{{end}}' "$image"
  bb rm "$container" >/dev/null
}

# Run as in a container: a read-only root, /tmp in memory, user 10001 without capabilities, process 1.
run() {
  local model=$1 server
  container=$(bb from "localhost/yolox-serve:$FLAVOUR")
  root=$WORK/root
  mkdir -p "$root"
  trap 'umount -R "$root" 2>/dev/null; bb rm "$container" >/dev/null' EXIT
  mount --bind "$(bb mount "$container")" "$root"
  mount -o remount,bind,ro "$root"
  mount -t tmpfs -o mode=1777,size=64m,noexec,nosuid tmpfs "$root/tmp"
  mount --bind /dev "$root/dev"
  if [ -n "$model" ]; then
    mount -t tmpfs -o mode=755 tmpfs "$root/models"
    install -m 644 "$model" "$root/models/model.onnx"
    model=/models/model.onnx
  fi
  local environment
  environment=$(bb inspect --type image --format '{{range .Docker.Config.Env}}{{println .}}{{end}}' \
    "localhost/yolox-serve:$FLAVOUR" | grep =)
  mapfile -t environment <<<"$environment"
  unshare --pid --fork --mount-proc="$root/proc" \
    chroot "$root" setpriv --reuid 10001 --regid 10001 --clear-groups --bounding-set=-all --inh-caps=-all \
    --no-new-privs /usr/bin/env -i -C /opt/app "${environment[@]}" \
    YOLOX_HOST=127.0.0.1 YOLOX_PORT=$PORT YOLOX_MODEL="$model" YOLOX_DEVICE="${DEVICE:-auto}" YOLOX_WORKERS="${WORKERS:-1}" \
    python -m service 2>"$WORK/service.log" &
  server=$!
  check "$root" "$server" "${environment[@]}"
}

check() {
  local root=$1 server=$2 began=$SECONDS first
  shift 2
  inside() { chroot --userspec=10001:10001 "$root" /usr/bin/env -i "$@"; }
  until inside "$@" YOLOX_PORT=$PORT python /opt/healthcheck.py 2>/dev/null; do
    kill -0 "$server" || { cat "$WORK/service.log"; return 1; }
    [ $((SECONDS - began)) -lt 120 ] || { echo "not ready after 120 s"; return 1; }
    sleep 0.2
  done
  echo "ready after $((SECONDS - began)) s; the image's own health check says so"
  if inside "$@" touch /opt/app/x 2>/dev/null; then echo "the root is writable"; return 1; fi
  curl -fsS "http://127.0.0.1:$PORT/health/ready"; echo
  curl -fsS -H 'Content-Type: image/jpeg' --data-binary "@${PICTURE:-examples/street.jpg}" \
    "http://127.0.0.1:$PORT/detect" | cut -c 1-400; echo
  curl -fsS "http://127.0.0.1:$PORT/metrics" \
    | grep -E '^(yolox_requests_total\{endpoint="/detect",status="200"\} 1|yolox_model_info|process_resident_memory_bytes)'
  first=$(pgrep -P "$server")
  echo "process 1 of its namespace: $(grep NSpid "/proc/$first/status" | tr -s '\t' ' '), user $(stat -c %u "/proc/$first")"
  kill -TERM "$first"
  local code=0
  wait "$server" || code=$?
  echo "SIGTERM: exit code $code"
  return "$code"
}

case "${1:-}" in
  build) build "${2:?cpu or gpu}" ;;
  run) run "${2-}" ;;
  *) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
