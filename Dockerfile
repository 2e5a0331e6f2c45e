# For the CPU:          docker build -t sa-upscale .
# For NVIDIA's cards:   docker build -t sa-upscale --build-arg TORCH=cu130 .
# Then:                 docker run --rm -v "$PWD:/pictures" sa-upscale image in.png      (cards: with --gpus all)
# The result belongs to root unless it is run with --user "$(id -u):$(id -g)".

# Anything with Python 3.11 or newer and pip.
ARG BASE=python:3.12-slim
FROM ${BASE}

# Which build of torch: cpu is a fifth of the size of those with CUDA.
ARG TORCH=cpu

WORKDIR /source
COPY pyproject.toml constraints.txt weights.toml README.md LICENSE ./
COPY sa_upscale sa_upscale
RUN pip install --no-cache-dir --extra-index-url "https://download.pytorch.org/whl/${TORCH}" -c constraints.txt . \
    && rm -rf /source

# Checkpoints that are fetched or imported stay when a volume is mounted here.
ENV HF_HOME=/weights/hub SA_UPSCALE_WEIGHTS=/weights/own XDG_CACHE_HOME=/weights/cache
RUN mkdir -p /weights/hub /weights/own /weights/cache && chmod -R 777 /weights
WORKDIR /pictures
ENTRYPOINT ["sa-upscale"]
CMD ["--help"]
