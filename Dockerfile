# nertool serve, with torch's CPU build. The model is mounted:
#
#   docker build -t nertool .
#   docker run --rm -p 8000:8000 -v "$PWD/runs/demo:/model:ro" -e NERTOOL_API_KEY=secret nertool
FROM python:3.12-slim AS build
# One dependency is built from its source.
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/nertool
ENV PATH=/opt/nertool/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY constraints.txt .
RUN pip install --constraint constraints.txt --index-url https://download.pytorch.org/whl/cpu torch
COPY . .
RUN pip install --constraint constraints.txt '.[serve]'

FROM python:3.12-slim
COPY --from=build /opt/nertool /opt/nertool
ENV PATH=/opt/nertool/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --system --uid 10001 --home-dir /nonexistent nertool
USER 10001
WORKDIR /
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
ENTRYPOINT ["nertool", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/model"]
