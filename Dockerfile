# docker build --build-arg VERSION=1.2.3 -t mailsidecar .
#
# docker build --target sendmail -t mailsidecar-sendmail . builds the sendmail
# program alone, to be copied into the images of applications.
#
# GO_IMAGE may be any image with Go 1.26, a shell and CA certificates;
# scripts/check-image puts a local one here.
ARG GO_IMAGE=golang:1.26

FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS source
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .

FROM source AS build-sendmail
ARG TARGETOS TARGETARCH VERSION=devel
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
      -ldflags "-s -w -X main.version=$VERSION" -o /out/sendmail ./cmd/sendmail

FROM scratch AS sendmail
COPY --from=build-sendmail /out/sendmail /usr/sbin/
ENTRYPOINT ["/usr/sbin/sendmail"]

FROM source AS build
ARG TARGETOS TARGETARCH VERSION=devel
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
      -ldflags "-s -w -X mailsidecar/cli.linkedVersion=$VERSION" -o /out/mailsidecar . \
 && mkdir /out/data \
 && cp /etc/ssl/certs/ca-certificates.crt /out/ \
 && cp "$(go env GOROOT)/lib/time/zoneinfo.zip" /out/

FROM scratch
COPY --from=build /out/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/zoneinfo.zip /usr/share/
COPY --from=build /out/mailsidecar /usr/bin/
# An empty directory with the right owner: a fresh volume mounted here takes
# both over.
COPY --from=build --chown=65532:65532 /out/data /data

# TMPDIR: with a read-only root, /data is the one place that can be written.
ENV PATH=/usr/bin \
    ZONEINFO=/usr/share/zoneinfo.zip \
    MAILSIDECAR_DATA_DIR=/data \
    TMPDIR=/data
VOLUME /data
EXPOSE 8587
# By number, so that Kubernetes can tell that it is not root (runAsNonRoot).
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["/usr/bin/mailsidecar", "healthcheck"]
ENTRYPOINT ["/usr/bin/mailsidecar"]
CMD ["serve"]

ARG VERSION=devel
ARG REVISION=""
LABEL org.opencontainers.image.title="mailsidecar" \
      org.opencontainers.image.description="Mail over HTTP in, a durable queue, authenticated SMTP out to a relay" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
