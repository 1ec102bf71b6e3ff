# The check of a GPU, for machines with Docker and NVIDIA's container toolkit; docs/how-to/check-a-gpu.md has the commands.
# PyTorch's ordinary wheels bring CUDA, so the image needs none.
FROM python:3.12-slim
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /dyncollapse
COPY . .
RUN make install
ENTRYPOINT ["make"]
CMD ["gpu-check"]
