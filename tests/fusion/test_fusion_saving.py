"""What identifies a model, and what survives a file of examples."""

from gfviz.fusion import Example, read_examples, saving, write_examples


def test_examples_survive_the_file_whatever_they_hold(tmp_path):
    items = [Example("a\ud800", "b\u2028c\r\n", None, "x"), Example("é 🙂", "<script>", "t", "y")]
    write_examples(tmp_path / "e.jsonl", items)
    assert read_examples([tmp_path / "e.jsonl"]) == items


def test_models_that_differ_anywhere_have_different_hashes(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "_WHOLE_HASH_BYTES", 1000)
    monkeypatch.setattr(saving, "_BLOCK", 16)
    hashes = set()
    for number, at in enumerate((None, 0, 31 * 64 + 3, 63 * 64 + 5)):
        folder = tmp_path / str(number)
        folder.mkdir()
        content = bytearray(64 * 64)
        if at is not None:
            content[at] = 1
        (folder / "model.safetensors").write_bytes(content)
        hashes.add(saving.model_hash(str(folder)))
    assert len(hashes) == 4
    assert saving.model_hash("owner/name") == "hub:owner/name"
    assert saving.model_hash("owner/other") != "hub:owner/name"
