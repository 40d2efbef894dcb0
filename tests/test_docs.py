"""The documents say what the code does: nothing is left out, nothing points nowhere."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "craftastic"
CODE = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*")


def load(name: str) -> ModuleType:
    """Load one of the project's scripts, which are no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text(path: str) -> str:
    return (DOCS / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["settings.md", "errors.md", "api.md"])
def test_generated_page_is_in_step_with_the_code(page: str) -> None:
    reference = load("reference")

    assert text(f"reference/{page}") == reference.PAGES[page](), "run `make reference`"


def test_openapi_document_is_in_step_with_the_code() -> None:
    openapi = load("openapi")

    assert text("reference/openapi.json") == openapi.document(), "run `make openapi`"


def codes_in(source: str) -> Iterator[str]:
    """Yield what a module gives as an error's code: of a class, an argument or a field."""
    for node in ast.walk(ast.parse(source)):
        values: list[ast.expr | None] = []
        if isinstance(node, ast.ClassDef):
            for one in node.body:
                if isinstance(one, ast.Assign):
                    values += [one.value for t in one.targets if getattr(t, "id", "") == "code"]
                elif isinstance(one, ast.AnnAssign) and getattr(one.target, "id", "") == "code":
                    values.append(one.value)
        elif isinstance(node, ast.Call):
            values += [one.value for one in node.keywords if one.arg == "code"]
        elif isinstance(node, ast.Dict):
            values += [
                value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and key.value == "code"
            ]
        for value in values:
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.value


def test_codes_are_found_wherever_they_are_given() -> None:
    source = (
        "class A(B):\n    code = 'A_CODE'\n"
        "class C(B):\n    code: ClassVar[str] = 'C_CODE'\n"
        "answer(code='D_CODE')\nbody = {'code': 'E_CODE'}\n"
    )

    assert set(codes_in(source)) == {"A_CODE", "C_CODE", "D_CODE", "E_CODE"}


def test_every_error_code_is_documented() -> None:
    page = text("reference/errors.md")
    codes = {
        code
        for path in SOURCE.rglob("*.py")
        for code in codes_in(path.read_text(encoding="utf-8"))
        if CODE.fullmatch(code)
    }

    assert sorted(code for code in codes if f"`{code}`" not in page) == []


def command_paths() -> list[str]:
    """List every command of the command line, with the groups above it."""
    import typer.main  # noqa: PLC0415

    from craftastic.cli import main as cli  # noqa: PLC0415

    root = typer.main.get_command(cli.app)

    def walk(command: object, path: tuple[str, ...]) -> Iterator[str]:
        nested: dict[str, object] = getattr(command, "commands", {})
        for name, below in nested.items():
            if not getattr(below, "hidden", False):
                yield from walk(below, (*path, name))
        if not nested:
            yield " ".join(path)

    return sorted(walk(root, ("craftastic",)))


def test_every_command_is_documented() -> None:
    page = text("reference/cli.md")

    assert [path for path in command_paths() if path not in page] == []


# ---- links ----------------------------------------------------------------------------------


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def anchors(markdown: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", markdown)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, markdown: str) -> list[str]:
    """List a page's relative links whose file or heading is not there."""
    broken: list[str] = []
    prose = re.sub(r"(?ms)^```.*?^```", "", markdown)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists() or (
            anchor
            and path.suffix == ".md"
            and anchor not in anchors(path.read_text(encoding="utf-8"))
        ):
            broken.append(target)
    return broken


def test_relative_links_lead_somewhere() -> None:
    broken = {
        page.relative_to(ROOT).as_posix(): found
        for page in documents()
        if (found := broken_links(page, page.read_text(encoding="utf-8")))
    }

    assert broken == {}


def test_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# Here we are\n")

    found = broken_links(page, "[a](b.md) [b](#here-we-are) [c](#there) [d](https://example.org)")

    assert found == ["b.md", "#there"]


# ---- claims ---------------------------------------------------------------------------------


def named_tests(markdown: str) -> list[tuple[str, str]]:
    """Return what a page names as `test_file.py::test_name`."""
    return re.findall(r"`(test_\w+\.py)::(test_\w+)`", markdown)


def test_every_test_that_a_document_names_is_there() -> None:
    # The security page says which test proves which promise; a renamed test must not leave a
    # promise behind that nothing proves.
    sources = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    absent = [
        f"{page.relative_to(ROOT)}: {file}::{name}"
        for page in documents()
        for file, name in named_tests(page.read_text(encoding="utf-8"))
        if not re.search(rf"def {name}\b", sources.get(file, ""))
    ]

    assert absent == []


# ---- decisions ------------------------------------------------------------------------------

SECTIONS = ["Context", "Decision", "Consequences", "Alternatives", "Enforced by"]


@pytest.mark.parametrize(
    "page", sorted((DOCS / "decisions").glob("0*.md")), ids=lambda path: path.stem
)
def test_decision_has_its_five_sections_and_stands_in_the_index(page: Path) -> None:
    headings = re.findall(r"(?m)^## (.+)$", page.read_text(encoding="utf-8"))

    assert headings == SECTIONS
    assert f"({page.name})" in text("decisions/README.md")
