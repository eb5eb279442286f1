# docker build -t dreamer-bird .
# docker run --rm -it --init -v "$PWD/logdir:/app/logdir" dreamer-bird --variant bird --task dmc_cartpole_swingup
FROM python:3.11.14-slim-bookworm

ENV PYTHONUNBUFFERED=1
WORKDIR /app

COPY requirements.txt .
RUN pip install --no-cache-dir --no-deps -r requirements.txt

COPY . .
# Installs software OpenGL and renders a frame; the first user's number is 1000 on most hosts too,
# so that a mounted logdir can be written.
RUN tools/ensure_rendering.sh python \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 dreamer \
    && install -d -o 1000 logdir

USER 1000
VOLUME /app/logdir
ENTRYPOINT ["python", "run.py"]
