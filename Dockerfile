# One image with the three programs, static, what they are made of, and nothing else: no shell, no package manager, no root.
#
# The base image only compiles: of it the result holds the roots of TLS and what Go's exact version made. To name it by digest as
# well: docker buildx imagetools inspect golang:1.26.8-bookworm, and append @sha256:... below.
FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# There is no git here, so `truenorth version` tells what it is told: docker build --build-arg VERSION="$(git describe --tags --always)".
ARG VERSION=
RUN make sbom VERSION="$VERSION"

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/bin/ingest /src/bin/worker /src/bin/truenorth /usr/local/bin/
COPY --from=build /src/LICENSE /src/bin/NOTICES.txt /src/bin/*.cdx.json /usr/share/doc/truenorth/
USER 65532:65532
# Say which program to run: /usr/local/bin/ingest, /usr/local/bin/worker, or /usr/local/bin/truenorth and a command. A check of its
# health is the same with --healthy (docker-compose.yml), so it depends on the program, and stands where that is chosen.
CMD ["/usr/local/bin/truenorth", "--help"]
