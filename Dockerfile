# JoyFlash in a container; see examples/cluster/README.md.
FROM python:3.11-slim AS build

# Address of a package index with the PyTorch build you want, for example one for CPUs only.
# Empty takes the default build, which on Linux brings CUDA.
ARG TORCH_INDEX=""
ARG EXTRAS="full,ray"

WORKDIR /source
RUN python -m venv /opt/joyflash
ENV PATH=/opt/joyflash/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# torch goes first and by its exact version; this layer survives every change of the sources.
COPY constraints.txt ./
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' constraints.txt)"

COPY pyproject.toml README.md LICENSE NOTICE weights.toml ./
COPY joyflash_cli ./joyflash_cli
RUN pip install -c constraints.txt ".[$EXTRAS]" && joyflash --version


FROM python:3.11-slim

RUN useradd --create-home --uid 1000 joyflash
COPY --from=build /opt/joyflash /opt/joyflash
ENV PATH=/opt/joyflash/bin:$PATH

USER joyflash
WORKDIR /work
ENTRYPOINT ["joyflash"]
CMD ["--help"]
