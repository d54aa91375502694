import pytest

from musax.datasets.files import file_source


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def names_of(source, split, folder):
    prefix = f"{folder}/"
    return [example["path"].removeprefix(prefix) for example in source.sequence(split)]


@pytest.mark.parametrize("validation", ["validation", "valid", "val"])
def test_folders_are_splits(validation, tmp_path):
    write(tmp_path, "train/b.txt", "train/deep/a.txt", f"{validation}/c.TXT", "test/d.txt")
    write(tmp_path, "train/e.png", "train/.f.txt", "metadata.txt")
    source = file_source(tmp_path, [".txt"])
    assert source.splits == ("train", "validation", "test")
    assert names_of(source, "train", tmp_path) == ["train/b.txt", "train/deep/a.txt"]
    assert names_of(source, "validation", tmp_path) == [f"{validation}/c.TXT"]
    assert names_of(source, "test", tmp_path) == ["test/d.txt"]


def test_without_a_folder_there_is_no_split(tmp_path):
    write(tmp_path, "train/a.txt", "valid/b.txt")
    assert file_source(tmp_path, [".txt"]).splits == ("train", "validation")


def test_named_files(tmp_path):
    write(tmp_path, *(f"{name}.txt" for name in "abcd"))
    for files in (tmp_path, f"{tmp_path}/*.txt", [f"{tmp_path}/[ab].txt", f"{tmp_path}/[cd].txt"]):
        source = file_source(files, [".txt"], validation_files=["b.txt"], test_files=["c.txt"])
        found = [names_of(source, split, tmp_path) for split in source.splits]
        assert found == [["a.txt", "d.txt"], ["b.txt"], ["c.txt"]]
    source = file_source(tmp_path, [".txt"], validation_files=["b.txt"])
    assert source.splits == ("train", "validation")
    assert names_of(source, "train", tmp_path) == ["a.txt", "c.txt", "d.txt"]


def test_paths_decide_where_nobody_does(tmp_path):
    write(tmp_path, *(f"{i % 3}/{i}.txt" for i in range(80)))
    source = file_source(tmp_path, [".txt"])
    found = {split: names_of(source, split, tmp_path) for split in source.splits}
    assert sorted(sum(found.values(), [])) == sorted(f"{i % 3}/{i}.txt" for i in range(80))  # noqa: RUF017
    assert len(found["train"]) > 60
    write(tmp_path, "0/100.txt", "0/101.txt")
    source = file_source(tmp_path, [".txt"])
    for split, before in found.items():
        assert set(before) <= set(names_of(source, split, tmp_path))
    with pytest.raises(ValueError, match="no split 'dev'"):
        source.sequence("dev")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\b"):
        file_source(tmp_path / "none", [".txt"]).sequence("train")
    with pytest.raises(FileNotFoundError, match=r"ends in \.txt or \.md"):
        file_source(tmp_path, [".txt", ".md"]).sequence("train")
    write(tmp_path, "a.txt", "b.txt")
    with pytest.raises(ValueError, match=r"validation_files: 'hamlet\.txt' is none"):
        file_source(tmp_path, [".txt"], ["hamlet.txt"]).sequence("train")
    with pytest.raises(ValueError, match="falls into the split 'test'; name some with"):
        file_source(tmp_path, [".txt"], ["a.txt"], ["a.txt"]).sequence("test")
