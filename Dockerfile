# One image with the three programs, static, and nothing else: no shell, no package manager, no root.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w' -o /out/ ./cmd/ingest ./cmd/worker ./cmd/truenorth

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/ /usr/local/bin/
USER 65532:65532
# Say which program to run: /usr/local/bin/ingest, /usr/local/bin/worker, or /usr/local/bin/truenorth and a command.
CMD ["/usr/local/bin/truenorth", "--help"]
