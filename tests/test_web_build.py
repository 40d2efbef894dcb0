"""The web page gets into every kind of package, and a page that cannot be built stops none."""

import gzip
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / ".tools" / "bin" / "uv"
TIMEOUT_S = 240.0
SCRIPT = "console.log('" + "a" * 3000 + "')"
BUILD = f"""
import fs from 'node:fs';
fs.mkdirSync('dist/assets', {{ recursive: true }});
fs.mkdirSync('dist/.vite', {{ recursive: true }});
fs.writeFileSync('dist/index.html', fs.readFileSync('index.html'));
fs.writeFileSync('dist/assets/a-1.js', {json.dumps(SCRIPT)});
fs.writeFileSync('dist/assets/a-1.js.map', '{{}}');
fs.writeFileSync('dist/.vite/manifest.json', '{{}}');
fs.appendFileSync('node_modules/builds', process.version + '\\n');
"""


def load() -> ModuleType:
    """Load the build hook, which is no package."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hook: Any = load()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Give a project with a page that needs nothing from elsewhere."""
    web = tmp_path / "web"
    web.mkdir()
    package = {"name": "a", "version": "1.0.0", "scripts": {"build": "node build.mjs"}}
    lock = {"name": "a", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": package}}
    (web / "package.json").write_text(json.dumps(package))
    (web / "package-lock.json").write_text(json.dumps(lock))
    (web / "build.mjs").write_text(BUILD)
    (web / "index.html").write_text("one")
    (tmp_path / "src" / "craftastic" / "web").mkdir(parents=True)
    return tmp_path


@pytest.fixture(autouse=True)
def without_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRAFTASTIC_SKIP_UI", raising=False)


def builds(project: Path) -> list[str]:
    """Return the version of Node of each build so far."""
    file = project / "web" / "node_modules" / "builds"
    return file.read_text().split() if file.is_file() else []


def app(project: Path) -> Path:
    return project / "src" / "craftastic" / "web" / "app"


def unpacked(project: Path, brotli: Path) -> str:
    node = Path(hook._node_folder()) / "bin" / "node"
    program = "process.stdout.write(zlib.brotliDecompressSync(fs.readFileSync(process.argv[1])))"
    done = subprocess.run(
        [str(node), "-e", program, str(brotli)], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_page_is_built_once_for_the_same_sources(project: Path) -> None:
    page = hook.Page(project)

    assert page.is_wanted
    assert page.build()
    assert page.build()

    assert [one.partition(".")[0] for one in builds(project)] == ["v24"], "Node of the package"
    script = app(project) / "assets" / "a-1.js"
    assert script.read_text() == SCRIPT
    assert gzip.decompress(script.with_name("a-1.js.gz").read_bytes()).decode() == SCRIPT
    assert unpacked(project, script.with_name("a-1.js.br")) == SCRIPT
    assert not (app(project) / ".vite").exists()
    assert not script.with_name("a-1.js.map").exists()
    assert not (app(project) / "index.html.gz").exists(), "compressing it would not pay"


def test_a_change_of_the_sources_builds_it_again(project: Path) -> None:
    hook.Page(project).build()
    (project / "web" / "index.html").write_text("two")

    assert hook.Page(project).build()

    assert (app(project) / "index.html").read_text() == "two"
    assert len(builds(project)) == 2


def test_a_page_that_is_there_is_used_where_there_are_no_sources(project: Path) -> None:
    hook.Page(project).build()
    shutil.rmtree(project / "web")

    page = hook.Page(project)

    assert not page.is_wanted
    assert page.build()
    assert (app(project) / "index.html").read_text() == "one"


def test_the_switch_uses_what_is_there(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAFTASTIC_SKIP_UI", "1")

    assert not hook.Page(project).build()

    app(project).mkdir()
    (app(project) / "index.html").write_text("mine")
    assert hook.Page(project).build()
    assert (app(project) / "index.html").read_text() == "mine"
    assert builds(project) == []


def test_a_failure_says_why_leaves_no_old_page_and_is_repeated_when_asked_only(
    project: Path,
) -> None:
    hook.Page(project).build()
    (project / "web" / "build.mjs").write_text("console.error('no such colour'); process.exit(3)")

    with pytest.raises(hook.NotBuiltError, match="no such colour"):
        hook.Page(project).build(again=False)

    assert not app(project).exists()
    assert hook.Page(project).build(again=False) is False
    with pytest.raises(hook.NotBuiltError):
        hook.Page(project).build()
    (project / "web" / "build.mjs").write_text(BUILD)
    assert hook.Page(project).build(again=False)


def test_the_checks_of_the_page_fail_when_one_of_them_does(project: Path) -> None:
    package = json.loads((project / "web" / "package.json").read_text())
    package["scripts"] |= dict.fromkeys(("lint", "typecheck", "types", "test"), "true")
    (project / "web" / "package.json").write_text(json.dumps(package))

    assert hook.Page(project).check()
    package["scripts"]["typecheck"] = "false"
    (project / "web" / "package.json").write_text(json.dumps(package))
    assert not hook.Page(project).check()


# ---- packages -------------------------------------------------------------------------------


@pytest.fixture
def checkout(project: Path) -> Path:
    """Give the real project with the little page in it."""
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "CHANGELOG.md", "LICENSE",
                 "requirements.lock", "tools.lock", ".gitignore"):  # fmt: skip
        shutil.copy(ROOT / name, project / name)
    ignored = shutil.ignore_patterns("__pycache__", "app", ".*")
    shutil.copytree(
        ROOT / "src" / "craftastic", project / "src" / "craftastic", ignore=ignored,
        dirs_exist_ok=True,
    )  # fmt: skip
    return project


def pack(
    checkout: Path, *options: str, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Build packages as an installation does: apart, with what the lock holds."""
    environment = dict(os.environ)  # noqa: TID251 - not a server's setting
    return subprocess.run(
        [
            *(str(UV), "build", "--python", sys.executable, "--build-constraints", "tools.lock"),
            *("--out-dir", "dist", *options),
            *([path] if path else []),
        ],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def names_in(package: Path) -> list[str]:
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            return wheel.namelist()
    with tarfile.open(package) as archive:
        return [name.partition("/")[2] for name in archive.getnames()]


def test_sdist_and_wheel_carry_the_page_and_the_sdist_needs_no_node(checkout: Path) -> None:
    done = pack(checkout, "--sdist")
    assert done.returncode == 0, done.stderr
    assert len(builds(checkout)) == 1
    (sdist,) = (checkout / "dist").glob("*.tar.gz")

    # The wheel of the sdist, as an index would hold it: nothing there can build the page.
    done = pack(checkout, "--wheel", path=str(sdist))
    assert done.returncode == 0, done.stderr
    (wheel,) = (checkout / "dist").glob("*.whl")

    assert len(builds(checkout)) == 1
    for package, source in ((sdist, "src/"), (wheel, "")):
        names = names_in(package)
        wanted = ["app/index.html", "app/assets/a-1.js", "app/assets/a-1.js.gz",
                  "app/assets/a-1.js.br", "lite/index.html", "lite/vendor/LICENSE"]  # fmt: skip
        for name in wanted:
            assert f"{source}craftastic/web/{name}" in names, (package.name, name)
        assert not [name for name in names if "node_modules" in name or name.startswith("web/")]


def test_a_page_that_cannot_be_built_stops_no_package(checkout: Path) -> None:
    (checkout / "web" / "build.mjs").write_text("console.error('no such colour'); process.exit(3)")

    done = pack(checkout, "--wheel")

    assert done.returncode == 0, done.stderr
    assert "THE WEB PAGE WAS NOT BUILT" in done.stderr
    assert "no such colour" in done.stderr
    (wheel,) = (checkout / "dist").glob("*.whl")
    names = names_in(wheel)
    assert "craftastic/web/lite/index.html" in names
    assert not [name for name in names if name.startswith("craftastic/web/app/")]
