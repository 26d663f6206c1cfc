"""An S3 server for tests, and what a person could do to the files of a lake behind the program's back."""

from collections.abc import Iterator

from pyarrow import fs

from tracker_pipeline.storage.lake_store import FolderStore, lake_store
from tracker_pipeline.storage.s3_store import S3Store
from tracker_pipeline.storage.sweeping import MARKER


def serve_s3() -> Iterator[str]:
    """A server that speaks S3 over HTTP on a free port, until the generator ends."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def create_bucket(server: str, name: str) -> None:
    """Create an empty bucket."""
    files = fs.S3FileSystem(
        access_key="test",
        secret_key="test",
        region="us-east-1",
        endpoint_override=server,
        allow_bucket_creation=True,
    )
    files.create_dir(name)


def lake_files() -> list[str]:
    """Every file of the lake, live or not, relative to its root; without the mark of who sweeps it."""
    return sorted(found.path for found in lake_store().list() if found.path != MARKER)


def read_file(path: str) -> bytes:
    """The content of a file of the lake."""
    with lake_store().open(path) as source:
        return source.read()


def plant_file(path: str, content: bytes) -> None:
    """Put a file into the lake, or over one, as somebody else would."""
    store = lake_store()
    if isinstance(store, FolderStore):
        target = store.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return
    assert isinstance(store, S3Store)
    with store._files.open_output_stream(store._key(path)) as sink:
        sink.write(content)
