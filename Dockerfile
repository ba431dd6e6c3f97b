# nezha-convert in a container, for CI and for sources that one does not trust: docs/container.md.
#   docker build --tag nezha-convert .                                   the core, under 250 MB
#   docker build --tag nezha-convert:torch --target torch .              with verify, on the CPU
# Every file from the index comes by its hash, but for torch, whose build for the CPU is in an index of PyTorch's own.
ARG PYTHON=python:3.12-slim-bookworm

FROM ${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
COPY .ci/requirements-core.lock .ci/
RUN python -m venv --without-pip /opt/nezha-convert \
 && pip --python /opt/nezha-convert install --no-compile --no-deps --only-binary :all: --require-hashes -r .ci/requirements-core.lock
COPY pyproject.toml README.md LICENSE ./
COPY nezha nezha
COPY nezha_convert nezha_convert
# What builds the package does not stay, and neither do numpy's tests. Compiled here, once: a read-only root keeps nothing.
RUN pip --python /opt/nezha-convert install --no-compile --no-deps --no-build-isolation . \
 && pip --python /opt/nezha-convert uninstall --yes hatchling pathspec pluggy tomlkit trove-classifiers \
 && find /opt/nezha-convert -path '*/numpy/*/tests' -prune -exec rm -r {} + \
 && python -m compileall -q --invalidation-mode unchecked-hash -x '/(tests|lexers|styles|f2py)/' /opt/nezha-convert

FROM build AS build-torch
COPY .ci/requirements-action.lock .ci/
COPY constraints.txt ./
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip --python /opt/nezha-convert install --no-compile --no-deps --only-binary :all: --require-hashes -r .ci/requirements-action.lock \
 && pip --python /opt/nezha-convert install --no-compile --no-deps --only-binary :all: -c constraints.txt --index-url ${TORCH_INDEX} torch \
 && pip --python /opt/nezha-convert uninstall --yes hatchling pathspec pluggy tomlkit trove-classifiers \
 && find /opt/nezha-convert -path '*/numpy/*/tests' -prune -exec rm -r {} + \
 && python -m compileall -q --invalidation-mode unchecked-hash -x '/(tests|lexers|styles|f2py)/' /opt/nezha-convert

# Nobody in particular, with nothing of their own: caches go to /tmp, which is all that a program may write besides what is mounted.
FROM ${PYTHON} AS runtime
ENV PATH=/opt/nezha-convert/bin:$PATH HOME=/tmp HF_HOME=/tmp/huggingface MPLCONFIGDIR=/tmp/matplotlib PYTHONDONTWRITEBYTECODE=1
WORKDIR /work
USER 10001:10001
ENTRYPOINT ["nezha-convert"]
CMD ["--help"]

FROM runtime AS torch
COPY --from=build-torch /opt/nezha-convert /opt/nezha-convert

FROM runtime AS core
COPY --from=build /opt/nezha-convert /opt/nezha-convert
