# One image for every kind of node (host, vm, fabric); it also runs the command line itself.
#
#   docker build -t testbed .          in a checkout, with Docker's own network
#   testbed image build                what `testbed up` does: see testbed/engines/docker/image.py
#
# The command line in a container, for a machine that has nothing but Docker (the lab's folder has one path for all):
#
#   docker run --rm -it --pid=host --network none --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add SYS_PTRACE \
#       --device /dev/net/tun --security-opt systempaths=unconfined -v /run/testbed:/run/testbed \
#       -v /var/run/docker.sock:/var/run/docker.sock testbed testbed up /opt/testbed/topologies/4host.yaml
#
# Order of the layers: what changes seldom comes first, so that a changed .py file costs seconds.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS system
LABEL testbed.image=stage
COPY images/node/packages.txt /opt/testbed/images/node/packages.txt
RUN apt-get update -qq \
    && grep -v '^#' /opt/testbed/images/node/packages.txt \
       | DEBIAN_FRONTEND=noninteractive xargs apt-get install -qq -y --no-install-recommends \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
# Where a folder wheels/ lies beside this file pip needs no index (which it may be unable to reach from here).
COPY pyproject.toml wheels* /tmp/wheels/
RUN cd /tmp/wheels \
    && python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
       > requirements.txt \
    && set -- $(ls | grep '[.]whl$') \
    && python3 -m pip install --quiet --break-system-packages --root-user-action=ignore --no-cache-dir \
       $([ $# -gt 0 ] && echo --no-index --find-links .) -r requirements.txt \
    && echo /opt/testbed > /usr/local/lib/python3.11/dist-packages/testbed.pth \
    && rm -rf /tmp/wheels

FROM system AS code
COPY testbed /opt/testbed/testbed
# A fresh checkout has no eBPF objects yet; the compiler stays in this stage.
RUN cd /opt/testbed \
    && { python3 -m testbed.nic.bpf.compiler 2>/dev/null \
         || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
              --no-install-recommends clang llvm libbpf-dev linux-libc-dev \
              && python3 -m testbed.nic.bpf.compiler; }; } \
    && python3 -m compileall -q testbed
COPY images /opt/testbed/images
COPY topologies /opt/testbed/topologies
COPY Dockerfile pyproject.toml /opt/testbed/

FROM system AS node
LABEL testbed.image=node
COPY images/node/testbed /usr/local/bin/testbed
COPY --from=code /opt/testbed /opt/testbed
# tini reaps what commands leave behind; -s: also where it is not process 1 (docker run --pid=host).
ENTRYPOINT ["/usr/bin/tini", "-s", "--"]
CMD ["testbed", "--help"]
