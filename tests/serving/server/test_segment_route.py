"""``POST /v1/segment``: what comes back, and what is refused with which words."""

import io
import threading

import numpy as np
import pytest
from PIL import Image
from server_builders import CLASSES, RedSegmenter, client, picture, png, until

from dropclass_deploy.data.images import encode_png, overlay

URL = "/v1/segment"


def decoded(content: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content)))


def encoded(image: np.ndarray, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, form, **options)
    return stream.getvalue()


def test_a_mask_of_class_ids_at_the_images_size() -> None:
    image = picture(7, 9)
    with client() as http:
        answer = http.post(URL, content=encode_png(image))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    mask = decoded(answer.content)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, image[..., 0] % 4)
    assert answer.headers["x-model"] == "street"
    stages = [part.split(";")[0] for part in answer.headers["server-timing"].split(", ")]
    assert stages == ["decode", "queue", "preprocess", "infer", "mask", "encode"]


@pytest.mark.parametrize(("form", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})])
def test_other_formats_are_decoded(form: str, options: dict[str, object]) -> None:
    content = encoded(picture(16, 16), form, **options)
    with client() as http:
        answer = http.post(URL, content=content)
    np.testing.assert_array_equal(decoded(answer.content), decoded(content)[..., 0] % 4)


def test_a_form_with_the_field_image() -> None:
    image = picture()
    with client() as http:
        answer = http.post(URL, files={"image": ("street.png", encode_png(image), "image/png")})
    np.testing.assert_array_equal(decoded(answer.content), image[..., 0] % 4)


def test_an_overlay_is_the_librarys() -> None:
    image = picture()
    with client() as http:
        answer = http.post(f"{URL}?format=overlay", content=encode_png(image))
    np.testing.assert_array_equal(decoded(answer.content), overlay(image, image[..., 0] % 4, CLASSES))


def test_figures_by_class() -> None:
    image = np.zeros((2, 4, 3), np.uint8)
    image[0, :3, 0] = 3
    with client() as http:
        content = http.post(f"{URL}?format=json", content=encode_png(image)).json()
    assert (content["model"], content["height"], content["width"]) == ("street", 2, 4)
    rows = [(row["name"], row["rare"], row["pixels"], row["share"]) for row in content["classes"]]
    assert rows == [("sky", False, 5, 0.625), ("road", False, 0, 0), ("car", True, 0, 0), ("pole", True, 3, 0.375)]
    assert content["latency_ms"]["infer"] == 2.0


def test_several_models_are_told_apart_by_name() -> None:
    with client(RedSegmenter(), RedSegmenter()) as http:
        refused = http.post(URL, content=png())
        assert refused.status_code == 400
        assert refused.json() == {
            "error": "several models are served: say which with ?model=NAME, one of street, street1"
        }
        assert http.post(f"{URL}?model=street1", content=png()).headers["x-model"] == "street1"
        unknown = http.post(f"{URL}?model=lake", content=png())
        assert (unknown.status_code, unknown.json()["error"][:32]) == (404, "there is no model of this name; ")
        for name in ("../street", "%2e%2e%2fstreet", "a/b", "", "a" * 200, "http://elsewhere"):
            assert http.post(f"{URL}?model={name}", content=png()).status_code == 400, name


@pytest.mark.parametrize(
    ("content", "headers", "status", "message"),
    [
        (b"", {}, 400, "the body is empty"),
        (b"GIF89a" + bytes(40), {}, 400, "expected a whole PNG, JPEG or WEBP file"),
        (png()[:60], {}, 400, "cannot be read as an image"),
        (encode_png(np.zeros((13, 8, 3), np.uint8)), {}, 400, "the network cannot take 13 rows"),
        (b"--x\r\n", {"content-type": "multipart/form-data"}, 400, "the form cannot be read"),
        (b"junk", {"content-type": "multipart/form-data; boundary=x"}, 400, "the form "),
        (b"a=b", {"request-timeout-ms": "soon"}, 400, "header.request-timeout-ms"),
        (b"a=b", {"request-timeout-ms": "-5"}, 400, "header.request-timeout-ms"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(
    content: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    with client() as http:
        answer = http.post(URL, content=content, headers=headers)
        assert answer.status_code == status
        assert message in answer.json()["error"]
        assert http.post(URL, content=png()).status_code == 200


def test_a_form_without_the_file() -> None:
    with client() as http:
        for answer in (
            http.post(URL, files={"picture": ("a.png", png())}),
            http.post(URL, files=[("image", ("a.png", png())), ("image", ("b.png", png()))]),
            http.post(URL, data={"image": "text"}, files={"other": ("a.png", png())}),
        ):
            assert answer.status_code == 400
            assert "one file in the field 'image'" in answer.json()["error"]


def test_16_bit_grey_needs_a_value_range() -> None:
    deep = encoded(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000, "PNG")
    with client() as http:
        answer = http.post(URL, content=deep)
    assert answer.status_code == 400
    assert "more than 8 bits" in answer.json()["error"]


def test_a_deadline_of_the_requests_own() -> None:
    segmenter = RedSegmenter()
    with client(segmenter) as http:
        segmenter.hold.clear()
        answer = http.post(URL, content=png(), headers={"request-timeout-ms": "150"})
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert "within" in answer.json()["error"]
        segmenter.hold.set()
        until(lambda: http.post(URL, content=png()).status_code == 200)


def test_a_full_queue_refuses_at_once_and_loses_nobody() -> None:
    segmenter = RedSegmenter()
    with client(segmenter, max_batch=2, queue_size=2) as http:
        http.post(URL, content=png())
        segmenter.hold.clear()
        answers: list[int] = []

        def send() -> None:
            answers.append(http.post(URL, content=png()).status_code)

        threads = [threading.Thread(target=send) for _ in range(8)]
        threads[0].start()
        until(lambda: len(segmenter.batches) == 2)
        for thread in threads[1:]:
            thread.start()
        # One runs, two wait.
        until(lambda: len(answers) == 5)
        assert answers == [429] * 5
        refused = http.post(URL, content=png())
        assert refused.headers["retry-after"] == "1"
        assert "the queue of street is full" in refused.json()["error"]
        segmenter.hold.set()
        for thread in threads:
            thread.join(10)
        assert sorted(answers) == [200] * 3 + [429] * 5
    assert segmenter.batches == [1, 1, 2]
