"""Answers from a checkpoint alone: the same as the training's own validation gave."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

import flowers
from flowers import FlowerPredictor
from flowers.__main__ import run_function
from flowers.callbacks.collect_predictions import CollectsPredictions, as_predictions
from flowers.checkpoint import FORMAT, read_checkpoint
from flowers.cli import training
from flowers.cli.predict import predict
from flowers.data import FlowersDataModule
from flowers.evaluation import read_predictions

MODELS = {
    "CNNTask": ["--model.widths", "[8,16]"],
    "TransferTask": ["--model.arch", "mobilenet_v3_small", "--model.weights", "none"],
}


@pytest.fixture(scope="module", params=[*MODELS])
def checkpoint(request, synthetic, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    words = [
        "--model",
        request.param,
        *MODELS[request.param],
        "--data.image_size",
        "40",
        "--data.crop_size",
        "32",
    ]
    where = ["--data.root", str(synthetic), "--trainer.default_root_dir", str(folder)]
    trainer = [
        "--trainer.max_epochs",
        "2",
        "--trainer.accelerator",
        "cpu",
        "--trainer.log_every_n_steps",
        "1",
    ]
    training.main(["fit", *words, *where, *trainer])
    return folder / "lightning_logs" / "version_0" / "checkpoints" / "best.ckpt"


@pytest.fixture
def trained_ckpt(trained_run):
    """A checkpoint where it does not matter of which network."""
    return trained_run / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def expected(checkpoint, tmp_path_factory):
    """What ``test`` says of the test images: path and probabilities."""
    training.main(["test", "--ckpt_path", str(checkpoint)])
    with (checkpoint.parent.parent / "predictions.csv").open(newline="") as opened:
        return [*csv.DictReader(opened)]


def read_table(file: str | Path) -> list[dict[str, str]]:
    with Path(file).open(newline="", errors="surrogateescape") as opened:
        return [*csv.DictReader(opened)]


@pytest.mark.parametrize("batch_size", [1, 64])
def test_a_predictor_says_what_the_evaluation_said(checkpoint, expected, synthetic, batch_size):
    predictor = FlowerPredictor(checkpoint, batch_size=batch_size)
    answers = predictor([synthetic / row["path"] for row in expected])
    for answer, row in zip(answers, expected, strict=True):
        assert answer.label == row["predicted"]
        for name in predictor.class_names:
            assert answer.probabilities[name] == pytest.approx(float(row[name]), rel=1e-4, abs=1e-6)
        assert answer.probability == max(answer.probabilities.values())
        assert sum(answer.probabilities.values()) == pytest.approx(1)
        assert answer.rejected == (answer.probability < predictor.threshold)


@pytest.mark.parametrize("batch_size", ["1", "64"])
def test_over_the_validation_files_the_answers_are_those_of_validate_to_the_last_bit(
    checkpoint, synthetic, batch_size
):
    run = training.main(
        ["validate", "--ckpt_path", str(checkpoint), "--data.batch_size", batch_size]
    )
    [collected] = [
        callback for callback in run.trainer.callbacks if isinstance(callback, CollectsPredictions)
    ]
    predictor = FlowerPredictor(checkpoint, batch_size=int(batch_size))
    expected = as_predictions(
        collected.gather(run.trainer), run.datamodule, temperature=predictor.temperature
    )
    assert len(expected.paths) == 15
    answers = predictor([synthetic / path for path in expected.paths])
    assert [[*answer.probabilities.values()] for answer in answers] == expected.probs.tolist()
    labels = np.array([predictor.class_names.index(answer.label) for answer in answers])
    assert (labels == expected.probs.argmax(axis=1)).all()
    assert float((labels == expected.labels).mean()) == pytest.approx(
        float(run.trainer.callback_metrics["val/acc"])
    )


@pytest.mark.slow
def test_three_processes_write_the_file_of_one(checkpoint, synthetic, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    files = [str(synthetic / "roses"), str(tmp_path / "broken.jpg"), str(synthetic / "tulips")]
    command = [sys.executable, "-m", "flowers", "predict", *files, "--ckpt_path", str(checkpoint)]
    for name, devices in (("one", "1"), ("three", "3")):
        words = [
            "--accelerator",
            "cpu",
            "--batch_size",
            "8",
            "--devices",
            devices,
            "--out",
            f"{name}.csv",
        ]
        done = subprocess.run(
            [*command, *words], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 1, done.stderr  # a file could not be read
        assert "60 images classified, 1 could not be read" in done.stdout
    assert Path("one.csv").read_bytes() == Path("three.csv").read_bytes()
    assert {file.name for file in tmp_path.iterdir()} == {"broken.jpg", "one.csv", "three.csv"}


@pytest.mark.parametrize("batch_size", [1, 64])
def test_predict_writes_the_probabilities_of_test_in_an_empty_folder(
    checkpoint, expected, synthetic, tmp_path, batch_size
):
    copy = tmp_path / "moved.ckpt"
    shutil.copy(checkpoint, copy)
    files = [
        str(synthetic / row["path"]) for row in reversed(expected)
    ]  # the order is that of the input
    assert predict(files, ckpt_path=str(copy), batch_size=batch_size) == 0
    rows = read_table("predictions.csv")
    assert [row["path"] for row in rows] == files
    for row, ours in zip(reversed(rows), expected, strict=True):
        assert [row[name] for name in ("label", "predicted", "rejected", "error")] == [
            *("", ours["predicted"], ours["rejected"], "")
        ]
        for name in ("daisy", "tulips"):
            assert float(row[name]) == pytest.approx(float(ours[name]), rel=1e-4, abs=1e-6)


def test_up_to_twenty_photos_get_a_line_each_and_more_are_counted(trained_ckpt, synthetic, capsys):
    photo = str(sorted((synthetic / "roses").iterdir())[0])
    predict([photo], ckpt_path=str(trained_ckpt.parents[1]))
    line, last = capsys.readouterr().out.splitlines()
    answer = FlowerPredictor(trained_ckpt)(photo)
    best = sorted(answer.probabilities, key=answer.probabilities.__getitem__, reverse=True)[:3]
    classes = ", ".join(f"{name} {answer.probabilities[name]:.1%}" for name in best)
    assert line == f"{photo}: {'not sure: ' if answer.rejected else ''}{classes}"
    assert last == "1 image classified, 0 could not be read: predictions.csv"
    predict([str(synthetic / "roses")], ckpt_path=str(trained_ckpt))
    *lines, last = capsys.readouterr().out.splitlines()
    counts = Counter(
        "not sure" if row["rejected"] == "True" else row["predicted"]
        for row in read_table("predictions-2.csv")
    )
    assert [line.split(maxsplit=1) for line in lines if line[0] == " "] == [
        [str(count), name] for name, count in counts.most_common()
    ]
    assert last.startswith("30 images classified")


def test_all_kinds_of_images_go_one_way(checkpoint, synthetic):
    predictor = FlowerPredictor(checkpoint)
    file = sorted((synthetic / "roses").iterdir())[0]
    image = Image.open(file)
    kinds = [file, str(file), file.read_bytes(), image, np.asarray(image)]
    answers = [predictor(kind) for kind in kinds]
    assert all(answer == answers[0] for answer in answers)
    grey = Image.new("L", (50, 30), 99)
    for mode in ("L", "RGB", "CMYK", "P", "LA", "1"):
        assert predictor(grey.convert(mode)).label in predictor.class_names
    with pytest.raises(
        TypeError, match="expected a path, bytes, a PIL image or an array of bytes, got float"
    ):
        predictor(0.5)
    with pytest.raises(OSError, match=r"nowhere\.jpg"):
        predictor([file, "nowhere.jpg"])


def test_a_pil_image_is_turned_upright_and_read_once(checkpoint, synthetic, tmp_path):
    image = Image.open(sorted((synthetic / "roses").iterdir())[0]).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    image.resize((400, 300)).save(tmp_path / "phone.png", exif=exif)
    predictor = FlowerPredictor(checkpoint)
    opened = Image.open(tmp_path / "phone.png")
    size = opened.size
    answers = predictor([opened] * 16)
    expected = predictor(tmp_path / "phone.png").probability
    assert [answer.probability for answer in answers] == pytest.approx([expected] * 16, rel=1e-5)
    path, upright, lying = map(
        predictor._decode, [tmp_path / "phone.png", opened, np.asarray(opened)]
    )
    assert torch.equal(path, upright)
    assert not torch.equal(upright, lying)  # an array does not know
    assert opened.size == size
    with pytest.raises(TypeError, match="got array of uint16"):
        predictor(np.zeros((8, 8), dtype=np.uint16))
    with pytest.raises(ValueError, match="batch_size"):
        FlowerPredictor(checkpoint, batch_size=0)


def test_a_bit_of_the_optimizer_counts_too(checkpoint, tmp_path):
    content = bytearray((checkpoint.parent / "last.ckpt").read_bytes())
    state = torch.load(checkpoint.parent / "last.ckpt", weights_only=True)["optimizer_states"][0][
        "state"
    ]
    averages = [entry["exp_avg"] for entry in state.values() if "exp_avg" in entry]
    flat = [average for average in averages if average.ndim <= 2]
    largest = max(flat, key=torch.Tensor.numel)
    place = content.find(largest.contiguous().numpy().tobytes())
    assert place > 0
    content[place + 3] ^= 64
    (tmp_path / "flipped.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match="got a damaged file"):
        training.main(["fit", "--ckpt_path", str(tmp_path / "flipped.ckpt")])


def test_what_cannot_be_restored_is_named(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    name = next(name for name, value in content["state_dict"].items() if value.ndim == 4)
    odd = [
        {"state_dict": content["state_dict"] | {name: content["state_dict"][name] * float("nan")}},
        {"FlowersDataModule": {}},
        {"state_dict": {}},
        {"state_dict": {name: torch.zeros(1).expand(10**9)}},
    ]
    for change in odd:
        torch.save(content | change, tmp_path / "odd.ckpt")
        with pytest.raises(ValueError, match=r"odd\.ckpt: expected a checkpoint of this project"):
            FlowerPredictor(tmp_path / "odd.ckpt")


def test_a_bad_file_is_a_row_with_its_error(trained_ckpt, synthetic, tmp_path, capsys):
    folder = tmp_path / "photos" / "inside"
    folder.mkdir(parents=True)
    good = sorted((synthetic / "tulips").iterdir())[:3]
    for file in good:
        shutil.copy(file, folder)
    (folder / "0000-broken.jpg").write_bytes(good[0].read_bytes()[:200])
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.jpg").write_bytes(good[0].read_bytes())
    sheet = tmp_path / "sheet.png"
    assert (
        predict([str(tmp_path / "photos")], ckpt_path=str(trained_ckpt), contact_sheet=sheet) == 1
    )
    printed = capsys.readouterr().out
    assert "3 images classified, 1 could not be read" in printed
    assert f"{folder / '0000-broken.jpg'}: cannot be read" in printed
    rows = read_table("predictions.csv")
    assert sorted(Path(row["path"]).name for row in rows) == [
        "0000-broken.jpg",
        *(file.name for file in good),
    ]
    [bad] = [row for row in rows if row["error"]]
    assert bad["path"].endswith("0000-broken.jpg")
    assert bad["predicted"] == bad["tulips"] == ""
    assert len(read_predictions("predictions.csv", needs_labels=False).paths) == 3
    with pytest.raises(ValueError, match="expected a label in each row"):
        read_predictions("predictions.csv")
    with Image.open(sheet) as opened:
        assert len(opened.convert("RGB").getcolors(10_000_000)) > 100


def test_ignored_files_of_a_folder_are_counted_in_one_line(
    trained_ckpt, synthetic, tmp_path, capsys
):
    folder = tmp_path / "photos"
    (folder / "phone").mkdir(parents=True)
    photo = sorted((synthetic / "roses").iterdir())[0]
    for name in ("1.jpe", "2.JFIF", "3.heic", "4.JPG_large"):
        shutil.copy(photo, folder / "phone" / name)
    shutil.copytree(folder / "phone", folder / "lightning_logs")
    (folder / "LICENSE.txt").touch()
    assert predict([str(folder)], ckpt_path=str(trained_ckpt)) == 0
    line, *_, result = capsys.readouterr().out.splitlines()
    assert line.startswith("2 files are ignored: name does not end in .jpg, ")
    assert "(.heic 1, .JPG_large 1)" in line
    assert "pillow-heif" in line
    assert result.startswith("2 images classified, 0 could not be read")


@pytest.mark.parametrize("name", ["predictions.csv", "sheet.png"])
def test_a_file_made_while_it_predicts_stays(name, trained_ckpt, synthetic, monkeypatch, capsys):
    stream = FlowerPredictor.stream

    def interrupted(self, images):
        answers = stream(self, images)
        yield next(answers)
        Path(name).write_text("mine")
        yield from answers

    monkeypatch.setattr(FlowerPredictor, "stream", interrupted)
    files = [str(file) for file in sorted((synthetic / "tulips").iterdir())[:3]]
    assert predict(files, ckpt_path=str(trained_ckpt), contact_sheet=Path("sheet.png")) == 0
    assert Path(name).read_text() == "mine"
    written = name.replace(".", "-2.")
    assert {file.name for file in Path().iterdir()} == {"predictions.csv", "sheet.png", written}
    assert written in capsys.readouterr().out
    [table] = (file for file in Path().glob("predictions*.csv") if file.name != name)
    assert [row["path"] for row in read_table(table)] == files


def test_what_is_meant_by_a_path(synthetic, trained_ckpt, tmp_path):
    daisy = str(synthetic / "daisy" / "0001.jpg")
    assert (
        predict([f"{synthetic}/r*/000*.jpg", daisy, "nowhere.jpg"], ckpt_path=str(trained_ckpt))
        == 1
    )
    paths = [row["path"] for row in read_table("predictions.csv")]
    assert paths == [*map(str, sorted(synthetic.glob("r*/000*.jpg"))), daisy, "nowhere.jpg"]
    with pytest.raises(FileNotFoundError, match=r"photos nowhere: expected a file, a folder"):
        predict(["nowhere"], ckpt_path=str(trained_ckpt))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"photos empty: expected images"):
        predict(["empty"], ckpt_path=str(trained_ckpt))


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--out", "."], ValueError, r"--out \.: expected the name of a CSV file"),
        (["--contact_sheet", "sheet.csv"], ValueError, r"--contact_sheet sheet\.csv: expected"),
        (["--accelerator", "abacus"], SystemExit, "2"),
        (["--devices", "x"], ValueError, r"--devices x .*expected devices of this machine"),
        (["--batch_size", "0"], ValueError, "--batch_size 1 or more"),
    ],
)
def test_a_wrong_option_is_named_before_any_work(words, error, message, trained_ckpt, synthetic):
    shutil.copy(sorted((synthetic / "roses").iterdir())[0], "photo.jpg")
    with pytest.raises(error, match=message):
        run_function(predict, ["photo.jpg", "--ckpt_path", str(trained_ckpt), *words])
    assert [file.name for file in Path.cwd().iterdir()] == ["photo.jpg"]


def test_a_stream_holds_two_batches_and_no_more(trained_ckpt, synthetic):
    predictor = FlowerPredictor(trained_ckpt, batch_size=4)
    file, taken = sorted((synthetic / "roses").iterdir())[0], []

    def endless():
        while True:
            taken.append(file)
            yield file

    answers = predictor.stream(endless())
    assert [next(answers).label for _ in range(5)]
    assert len(taken) == 12


def test_test_time_augmentation_is_used_where_it_is_asked_for(checkpoint, synthetic, tmp_path):
    plain, augmented = FlowerPredictor(checkpoint), FlowerPredictor(checkpoint, tta="flip")
    image = np.asarray(Image.open(sorted((synthetic / "roses").iterdir())[0]))
    assert augmented(image) != plain(image)
    mirrored = np.ascontiguousarray(image[:, ::-1])
    assert augmented(image).probability == pytest.approx(augmented(mirrored).probability, rel=1e-3)
    Image.fromarray(image).save(tmp_path / "rose.png")
    assert predict([str(tmp_path / "rose.png")], ckpt_path=str(checkpoint), tta="flip") == 0
    [row] = read_table("predictions.csv")
    assert float(row[row["predicted"]]) == pytest.approx(augmented(image).probability, rel=1e-5)


def test_the_package_opens_without_torch():
    code = "import sys, flowers; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert flowers.FlowerPredictor is FlowerPredictor
    assert {"CNNTask", "FlowerPredictor", "FlowersDataModule", "TransferTask", "__version__"} <= {
        *dir(flowers)
    }
    assert all(isinstance(getattr(flowers, name), type) for name in flowers.__all__)
    with pytest.raises(AttributeError, match="no attribute 'FlowersPredictor'"):
        _ = flowers.FlowersPredictor


def test_a_damaged_checkpoint_is_refused(trained_ckpt, tmp_path):
    whole = trained_ckpt.read_bytes()
    original = read_checkpoint(trained_ckpt)["state_dict"]
    rng = np.random.default_rng(0)
    for position in (*rng.integers(0, len(whole), size=40), len(whole) // 2):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))  # a single bit
        file = tmp_path / "damaged.ckpt"
        file.write_bytes(damaged)
        try:
            weights = read_checkpoint(file)["state_dict"]
        except ValueError:
            continue
        # Padding, or a date of the archive.
        assert all(torch.equal(value, weights[name]) for name, value in original.items())
    weights = next(name for name in ZipFile(trained_ckpt).namelist() if "/data/" in name)
    start = whole.index(ZipFile(trained_ckpt).read(weights))
    file.write_bytes(whole[:start] + bytes([whole[start] ^ 1]) + whole[start + 1 :])
    with pytest.raises(
        ValueError, match=r"damaged\.ckpt: expected an undamaged file, got a damaged file"
    ):
        FlowerPredictor(file)
    with pytest.raises(ValueError, match="got a damaged file"):
        training.main(["test", "--ckpt_path", str(file)])


@pytest.mark.parametrize(
    "name", ["os.system", "flowers.training.main", "flowers.tasks.expect", "antigravity.Task"]
)
def test_no_code_of_a_checkpoints_choice_runs(name, trained_ckpt, tmp_path):
    content = torch.load(trained_ckpt, weights_only=True)
    content["config"] = f"model:\n  class_path: {name}\n"
    torch.save(content, tmp_path / "hostile.ckpt")
    with pytest.raises(ValueError, match="expected a checkpoint with a task of this package"):
        FlowerPredictor(tmp_path / "hostile.ckpt")


def test_a_checkpoint_of_another_format_is_refused(trained_run, tmp_path):
    checkpoint = torch.load(trained_run / "checkpoints" / "best.ckpt", weights_only=True)
    for number in (None, FORMAT + 1):
        torch.save(checkpoint | {"format": number}, tmp_path / "x.ckpt")
        expected = (
            f"expected a checkpoint of format {FORMAT}, got {number}. "
            f"Use the version of flowers that wrote it"
        )
        with pytest.raises(ValueError, match=expected):
            FlowerPredictor(tmp_path / "x.ckpt")


def test_a_trainer_predicts_as_the_predictor(trained_run, synthetic):
    predictor = FlowerPredictor(trained_run, device="cpu")
    data = FlowersDataModule(str(synthetic), image_size=40, crop_size=32)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    answers = [answer for batch in trainer.predict(predictor.task, data) for answer in batch]
    paths = [str(synthetic / data.index.paths[index]) for index in data.indices["test"]]
    assert [answer.path for answer in answers] == paths
    expected = predictor(paths)
    assert [answer.path for answer in expected] == paths
    assert [answer.label for answer in answers] == [answer.label for answer in expected]
    for answer, other in zip(answers, expected, strict=True):
        assert answer.probabilities == pytest.approx(other.probabilities, abs=1e-6)
        assert answer.rejected == other.rejected
