# The commands and the demo page, without CUDA. docs/install.md shows how to build and use it.
FROM python:3.11-slim
# index of PyTorch's CPU wheels, see pytorch.org; without it, the wheels have CUDA, which takes several GB
ARG TORCH_INDEX
RUN pip install --no-cache-dir torch torchvision ${TORCH_INDEX:+--index-url $TORCH_INDEX}
COPY setup.cfg pyproject.toml MANIFEST.in README.md LICENSE CHANGELOG.md CITATION.cff /src/
COPY hf_dvflnet /src/hf_dvflnet
COPY dvflnet_cli /src/dvflnet_cli
RUN pip install --no-cache-dir "/src[demo,export,image]" && rm -rf /src
RUN useradd --create-home user
USER user
WORKDIR /data
ENTRYPOINT ["dvflnet"]
