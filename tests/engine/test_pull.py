"""Downloads: the real program against a small hub on the loopback, over real HTTP."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from rich.console import Console
from yarl import URL

from stream_core.errors import ModelNotFound, StreamError
from stream_engine import pull as program
from stream_engine.hub import Hub, RemoteFile, may_carry_token
from stream_engine.hub import _file as read_file
from stream_engine.hub import _licence as read_licence
from stream_engine.pull import choose, local_name, parse_name

REPO = "org/tiny-GGUF"
COMMIT = "c" * 40
CONTENT = b"GGUF" + bytes(range(256)) * 12_000


@dataclass
class FakeHub:
    """The hub's two routes, and the place where its redirects lead; what went wrong is set by the test."""

    licence: str = "apache-2.0"
    files: dict[str, bytes] = field(default_factory=lambda: {"tiny-Q4_K_M.gguf": CONTENT, "tiny-Q8_0.gguf": b"GGUF8"})
    wrong_hash: bool = False
    cut_at: list[int] = field(default_factory=list)
    """Bytes after which the next answers break off."""
    ranges: list[str] = field(default_factory=list)
    """The `Range` header of every request for content; empty where there was none."""
    tokens: dict[str, set[str]] = field(default_factory=lambda: {"hub": set(), "store": set()})
    base: str = ""
    store: str = ""

    async def listing(self, request: web.Request) -> web.Response:
        """Answer `/api/models/<repo>`."""
        self.tokens["hub"].add(request.headers.get("Authorization", ""))
        if request.match_info["name"] == "absent-GGUF":
            raise web.HTTPNotFound
        if request.match_info["name"] == "gated-GGUF" and "Authorization" not in request.headers:
            raise web.HTTPUnauthorized
        siblings = [
            {
                "rfilename": name,
                "size": len(data),
                "lfs": {"size": len(data), "sha256": hashlib.sha256(b"?" if self.wrong_hash else data).hexdigest()},
            }
            for name, data in self.files.items()
        ]
        facts = {"sha": COMMIT, "cardData": {"license": self.licence}, "siblings": siblings}
        return web.json_response(facts)

    async def resolve(self, request: web.Request) -> web.Response:
        """Answer `/<repo>/resolve/<commit>/<file>` with a redirect to the store, another host of its own."""
        assert request.match_info["commit"] == COMMIT
        raise web.HTTPFound(f"{self.store}/blob/{request.match_info['file']}")

    async def blob(self, request: web.Request) -> web.StreamResponse:
        """Answer with the bytes asked for, or with some of them and a broken connection."""
        self.tokens["store"].add(request.headers.get("Authorization", ""))
        data = self.files[request.match_info["file"]]
        asked = request.headers.get("Range", "")
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        headers = {"Content-Length": str(len(data) - start)}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        response = web.StreamResponse(status=206 if asked else 200, headers=headers)
        await response.prepare(request)
        end = start + self.cut_at.pop(0) if self.cut_at else len(data)
        await response.write(data[start:end])
        if end < len(data):
            assert request.transport is not None
            request.transport.close()
        return response


async def serve(app: web.Application) -> tuple[web.AppRunner, str]:
    """Serve an application on a free loopback port."""
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    """A hub and its store, on two ports."""
    fake = FakeHub()
    front, back = web.Application(), web.Application()
    front.router.add_get("/api/models/{org}/{name}", fake.listing)
    front.router.add_get("/{org}/{name}/resolve/{commit}/{file}", fake.resolve)
    back.router.add_get("/blob/{file}", fake.blob)
    runners = [await serve(app) for app in (front, back)]
    (_, fake.base), (_, fake.store) = runners
    fake.store = fake.store.replace("127.0.0.1", "localhost")
    yield fake
    for runner, _ in runners:
        await runner.cleanup()


def kept(folder: Path) -> list[str]:
    """Return the paths of all files below a folder, relative to it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def pull(endpoint: str, folder: Path, *arguments: str, **env: str) -> tuple[int, str]:
    """Run `python -m stream_engine.pull` and return its exit code and what it wrote to stderr."""
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("STREAM_", "HF_")) and not k.lower().endswith("_proxy")
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "stream_engine.pull",
        *arguments,
        env={**inherited, "HF_ENDPOINT": endpoint, "STREAM_MODELS_DIR": str(folder), **env},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, errors.decode()


async def test_pull_brings_the_file_and_prints_its_licence(hub: FakeHub, tmp_path: Path) -> None:
    """A pull takes Q4_K_M when nothing is named, prints the licence before it, and leaves the whole file alone."""
    code, said = await pull(hub.base, tmp_path, REPO)
    assert code == 0
    assert said.index("apache-2.0") < said.index("tiny-Q4_K_M.gguf")
    assert kept(tmp_path) == [f"{REPO}/tiny-Q4_K_M.gguf"]
    assert (tmp_path / REPO / "tiny-Q4_K_M.gguf").read_bytes() == CONTENT
    code, _ = await pull(hub.base, tmp_path, REPO)
    assert (code, len(hub.ranges)) == (0, 1)


async def test_cut_download_goes_on_where_it_ended(hub: FakeHub, tmp_path: Path) -> None:
    """When the connection breaks, the rest is asked for with a range, and the result is right."""
    hub.cut_at = [1_000_000]
    code, said = await pull(hub.base, tmp_path, f"{REPO}:Q4_K_M")
    assert code == 0, said
    first, second = hub.ranges
    assert first == ""
    start = int(second.removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= 1_000_000
    assert (tmp_path / REPO / "tiny-Q4_K_M.gguf").read_bytes() == CONTENT


async def test_part_of_an_earlier_run_is_used(hub: FakeHub, tmp_path: Path) -> None:
    """A part that an interrupted run left is taken up by the next run."""
    digest = hashlib.sha256(CONTENT).hexdigest()
    part = tmp_path / REPO / f".tiny-Q4_K_M.gguf.{digest[:12]}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:77_777])
    code, _ = await pull(hub.base, tmp_path, REPO)
    assert (code, hub.ranges) == (0, ["bytes=77777-"])
    assert (tmp_path / REPO / "tiny-Q4_K_M.gguf").read_bytes() == CONTENT
    assert not part.exists()


async def test_wrong_hash_is_refused_and_nothing_is_kept(hub: FakeHub, tmp_path: Path) -> None:
    """Bytes that are not the published ones end in one line, exit code 1, and an empty folder."""
    hub.wrong_hash = True
    code, said = await pull(hub.base, tmp_path, REPO, "--file", "tiny-Q8_0.gguf")
    assert code == 1
    assert "is not what the hub publishes" in said.splitlines()[-1]
    assert kept(tmp_path) == []


async def test_token_goes_to_the_hub_and_not_where_it_redirects(hub: FakeHub, tmp_path: Path) -> None:
    """`HF_TOKEN` opens a gated repository, and is not passed on to the store; without it, one line says so."""
    gated = "org/gated-GGUF"
    code, said = await pull(hub.base, tmp_path, gated)
    assert (code, "set HF_TOKEN" in said, len(said.splitlines())) == (1, True, 1)
    code, said = await pull(hub.base, tmp_path, gated, HF_TOKEN="hf_secret")
    assert code == 0
    assert "Bearer hf_secret" in hub.tokens["hub"]
    assert hub.tokens["store"] == {""}
    assert "hf_secret" not in said


async def test_without_network_the_demo_goes_on(tmp_path: Path, unused_tcp_port: int) -> None:
    """No network is one line that says what to do, and exit code 1."""
    code, said = await pull(f"http://127.0.0.1:{unused_tcp_port}", tmp_path, "llama3.2:3b")
    assert code == 1
    (line,) = said.splitlines()
    assert line.startswith("stream-engine: cannot reach 127.0.0.1")
    assert "demo model" in line


@pytest.mark.parametrize(
    ("name", "pick", "says"),
    [
        ("org/absent-GGUF", "", "has no org/absent-GGUF"),
        (REPO, "Q2_K", "it offers: Q4_K_M, Q8_0"),
        ("nonsense", "", "llama3.2:3b"),
    ],
)
async def test_wrong_names_are_explained(hub: FakeHub, tmp_path: Path, name: str, pick: str, says: str) -> None:
    """A repository, file or name that is not there is an error that says what there is."""
    async with Hub(hub.base) as client:
        with pytest.raises(StreamError, match=says):
            await program.pull(name, pick, tmp_path, client, Console(stderr=True))


def files(*names: str) -> list[RemoteFile]:
    """Return files with these names."""
    return [RemoteFile(name, 1, "ab") for name in names]


@pytest.mark.parametrize(
    ("offered", "pick", "taken"),
    [
        (("m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-F16.gguf"), "", ["m-Q4_K_M.gguf"]),
        (("m-Q8_0.gguf", "m-F16.gguf", "README.md"), "", ["m-Q8_0.gguf"]),
        (("m-Q8_0.gguf", "m-Q4_K_M.gguf"), "q8_0", ["m-Q8_0.gguf"]),
        (("a/m-Q8_0.gguf", "b/m-Q4_0.gguf"), "m-Q4_0.gguf", ["b/m-Q4_0.gguf"]),
        (("mmproj-m-F16.gguf", "m-F16.gguf"), "", ["m-F16.gguf"]),
        (
            ("m-Q4_0-00002-of-00002.gguf", "m-Q4_0-00001-of-00002.gguf"),
            "",
            ["m-Q4_0-00001-of-00002.gguf", "m-Q4_0-00002-of-00002.gguf"],
        ),
    ],
)
def test_choice_of_files(offered: tuple[str, ...], pick: str, taken: list[str]) -> None:
    """The sensible quantisation, the named one, all parts of a split model, never a projector."""
    assert [file.name for file in choose(files(*offered), pick)] == taken


def test_hostile_listing_is_read_without_harm() -> None:
    """A hash that is a path, a licence with control characters, a listing of another form: none gets through."""
    facts = {"rfilename": "m.gguf", "lfs": {"size": 5, "sha256": "../../../" + "a" * 55}}
    assert read_file(facts) == RemoteFile("m.gguf", 5, "")
    assert read_licence({"cardData": {"license": "mit\x1b[2J\n"}}) == "mit[2J"
    assert read_licence({"tags": ["gguf", "license:apache-2.0"]}) == "apache-2.0"


def test_incomplete_split_model_is_refused() -> None:
    """A split model of which a part is not published is not begun."""
    with pytest.raises(ModelNotFound, match="00002-of-00002"):
        choose(files("m-Q4_0-00001-of-00002.gguf"), "")


def test_names_stay_inside_the_folder() -> None:
    """A file name with folders in it, even upwards, keeps its last component alone."""
    assert [local_name(f) for f in files("../../etc/m.gguf", "a\\..\\n.gguf")] == ["m.gguf", "n.gguf"]


def test_catalogue_names_mean_repositories() -> None:
    """Friendly names stand for a repository and a quantisation, with the licence to print."""
    repo, pick, licence = parse_name("llama3.2:3b")
    assert (repo.count("/"), pick) == (1, "Q4_K_M")
    assert "Llama 3.2" in licence


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://huggingface.co", True),
        ("http://127.0.0.1:1", True),
        ("http://[::1]:1", True),
        ("http://mirror.example", False),
    ],
)
def test_token_is_never_sent_unencrypted(url: str, allowed: bool) -> None:
    """A token travels encrypted or stays on this machine."""
    assert may_carry_token(URL(url)) is allowed
