# Training on an NVIDIA GPU, or with `--build-arg DEVICE=cpu` without one: docs/container.md.
#   docker build -t dreamer-bird .
#   mkdir -p logdir
#   docker run --rm --init --gpus all -v "$PWD/logdir:/app/logdir" dreamer-bird \
#       --variant bird --task dmc_cartpole_swingup
FROM python:3.11.14-slim-bookworm

# The capability `graphics` brings NVIDIA's OpenGL in from the host, beside `compute` for CUDA.
# Rendering needs memory of the GPU too: TensorFlow must not take all of it at once.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,graphics,utility \
    TF_FORCE_GPU_ALLOW_GROWTH=true \
    PYTHONUNBUFFERED=1
WORKDIR /app

# The loader of OpenGL, and Mesa's in software for where there is no driver. Debian keeps only the
# newest release of a package: versions could be pinned, but then not installed.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libegl1 libgl1-mesa-dri libopengl0 \
    && rm -rf /var/lib/apt/lists/*
# The driver's libraries alone do not tell the loader that they are there.
COPY deploy/10_nvidia.json /usr/share/glvnd/egl_vendor.d/

COPY requirements.txt .
RUN pip install --no-cache-dir --no-deps -r requirements.txt
ARG DEVICE=gpu
COPY requirements-cuda.txt .
RUN [ "$DEVICE" = cpu ] || pip install --no-cache-dir --no-deps -r requirements-cuda.txt

# The first user's number is 1000 on most hosts too, so that a mounted logdir can be written.
# gpu-check leaves its findings in a folder of its own.
RUN useradd --uid 1000 dreamer && install -d -o 1000 -g 1000 logdir gpu-check
COPY . .
# Fails the build where no frame can be rendered; the user of the container cannot write bytecode.
RUN python run.py doctor --part rendering && python -m compileall -q dreamer_bird

USER 1000
VOLUME /app/logdir
HEALTHCHECK --interval=5m --timeout=30s CMD ["python", "/app/run.py", "doctor", "--part", "gpu"]
ENTRYPOINT ["python", "/app/run.py"]
