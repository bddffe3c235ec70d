"""A plugin that cannot do its work ends the process with one sentence, in the parent and in every spawned process."""

import subprocess
import sys
import textwrap

import pytest

from tests.checkpoints import Checkpoint, Shape, write_hf

FAULTS = {
    "an import error": """
        sys.modules["sgl_small4.plugin"] = None
    """,
    "a missing hook target": """
        from sglang.srt.plugins.hook_registry import HookType
        from sgl_small4.plugin import hooks
        hooks.HOOKS.append(hooks.Hook("sglang.srt.utils.common.no_such_symbol", HookType.AFTER, print))
    """,
    "a raising body": """
        from sgl_small4 import plugin
        def install():
            raise ZeroDivisionError("broken on purpose")
        plugin.install = install
    """,
}
SENTENCES = {
    "an import error": "could not be loaded",
    "a missing hook target": "this sglang has no sglang.srt.utils.common.no_such_symbol",
    "a raising body": "ZeroDivisionError: broken on purpose",
}


def run(script: str, tmp_path, *arguments: str) -> subprocess.CompletedProcess:
    file = tmp_path / "script.py"
    file.write_text(textwrap.dedent(script))
    return subprocess.run([sys.executable, str(file), *arguments], capture_output=True, text=True, timeout=240)


def script(fault: str, where: str, body: str) -> str:
    name = {"parent": "__main__", "scheduler": "__mp_main__"}[where]  # a spawned process reads the file again
    return "\n".join(
        [
            "import sys",
            f"if __name__ == {name!r}:",
            textwrap.indent(textwrap.dedent(FAULTS[fault]), "    "),
            textwrap.dedent(body),
        ]
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_plugin_ends_the_parent_with_one_sentence(fault, tmp_path):
    body = """
        from sglang.srt.plugins import load_plugins
        load_plugins()
        print("went on")
    """
    ended = run(script(fault, "parent", body), tmp_path)
    assert ended.returncode == 1 and "went on" not in ended.stdout
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("sgl_small4: the plugin could not be loaded, so nothing is served: ")
    assert SENTENCES[fault] in last
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_plugin_in_the_scheduler_stops_the_engine(fault, tmp_path):
    folder = write_hf(Checkpoint.random(Shape(layers=1)), tmp_path / "model")
    body = """
        import sglang
        if __name__ == "__main__":
            sglang.Engine(model_path=sys.argv[1], skip_tokenizer_init=True, log_level="error")
            print("went on")
    """
    ended = run(script(fault, "scheduler", body), tmp_path, str(folder))
    assert ended.returncode != 0 and "went on" not in ended.stdout
    assert SENTENCES[fault] in ended.stderr


def test_a_broken_platform_ends_the_process_too(tmp_path):
    body = """
        import sys
        sys.modules["sgl_small4.cpu.platform"] = None
        from sglang.srt.platforms import current_platform
        print("went on", current_platform)
    """
    ended = run(body, tmp_path)
    assert ended.returncode == 1 and "went on" not in ended.stdout
    assert "sgl_small4: the platform could not be loaded" in ended.stderr.strip().splitlines()[-1]


def test_the_entry_module_imports_the_standard_library_alone():
    code = (
        "import sys; import sgl_small4.entry; print([m for m in sys.modules if m.split('.')[0] in ('sglang','torch')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
