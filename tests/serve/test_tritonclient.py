"""PyPI's tritonclient, unchanged, against the echo server: ECHELON_ECHO_SERVER names its binary."""

import asyncio
import json
import os
import pathlib
import subprocess
import urllib.request

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
import tritonclient.http.aio as aioclient
from tritonclient.utils import InferenceServerException

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVER = pathlib.Path(os.environ.get("ECHELON_ECHO_SERVER", ROOT / "build/bin/echelon-echo-server"))
DTYPES = {
    "bool": np.bool_, "u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64,
    "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
    "f16": np.float16, "f32": np.float32, "f64": np.float64, "bf16": ml_dtypes.bfloat16,
}  # fmt: skip
NAMES = {
    "bool": "BOOL", "u8": "UINT8", "u16": "UINT16", "u32": "UINT32", "u64": "UINT64",
    "i8": "INT8", "i16": "INT16", "i32": "INT32", "i64": "INT64",
    "f16": "FP16", "f32": "FP32", "f64": "FP64", "bf16": "BF16",
}  # fmt: skip


@pytest.fixture(scope="module")
def ports():
    child = subprocess.Popen([SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield json.loads(child.stdout.readline())
    child.stdin.close()
    assert child.wait(timeout=20) == 0


@pytest.fixture(params=[grpcclient, httpclient], ids=["grpc", "http"])
def library(request):
    return request.param


@pytest.fixture
def client(library, ports):
    port = ports["grpc" if library is grpcclient else "http"]
    client = library.InferenceServerClient(f"127.0.0.1:{port}")
    yield client
    client.close()


def array_of(name, shape=(2, 3)):
    values = np.random.default_rng(0).integers(0, 100, shape)
    return (values % 2 == 0) if name == "bool" else values.astype(DTYPES[name])


def input_of(library, name, array, **options):
    tensor = library.InferInput(name, list(array.shape), NAMES[name])
    tensor.set_data_from_numpy(array, **options)
    return tensor



def test_server_and_model_say_that_they_are_ready(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("echo") and client.is_model_ready("echo", "1")


def test_metadata_and_config_describe_the_model(client, library):
    options = {"as_json": True} if library is grpcclient else {}
    assert client.get_server_metadata(**options)["name"] == "echelon"
    model = client.get_model_metadata("echo", **options)
    assert {i["name"]: i["datatype"] for i in model["inputs"]} == NAMES
    assert [int(size) for size in model["inputs"][0]["shape"]] == [-1, -1]
    config = client.get_model_config("echo", **options)
    config = config.get("config", config)
    assert config["input"][0]["data_type"] == "TYPE_BOOL"
    index = client.get_model_repository_index(**options)
    assert (index if library is httpclient else index["models"])[0]["name"] == "echo"


@pytest.mark.parametrize("name", DTYPES)
def test_every_type_comes_back_as_it_went(client, library, name):
    array = array_of(name)
    result = client.infer("echo", [input_of(library, name, array)], request_id="5")
    answer = result.as_numpy("out_" + name)
    assert answer.dtype == array.dtype and (answer == array).all()


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (1000, 700)])
def test_sizes_from_none_to_millions(client, library, shape):
    array = array_of("f32", shape)
    assert (client.infer("echo", [input_of(library, "f32", array)]).as_numpy("out_f32") == array).all()


def test_several_inputs_and_chosen_outputs(client, library):
    arrays = {name: array_of(name) for name in ("f32", "i64", "bool")}
    inputs = [input_of(library, name, array) for name, array in arrays.items()]
    outputs = [library.InferRequestedOutput("out_i64"), library.InferRequestedOutput("out_bool")]
    result = client.infer("echo", inputs, outputs=outputs, model_version="1")
    assert (result.as_numpy("out_i64") == arrays["i64"]).all()
    assert (result.as_numpy("out_bool") == arrays["bool"]).all()
    assert result.as_numpy("out_f32") is None


def test_errors_reach_the_client_as_one_line(client, library):
    with pytest.raises(InferenceServerException, match="this server serves 'echo'"):
        client.infer("other", [input_of(library, "f32", array_of("f32"))])
    with pytest.raises(InferenceServerException, match="no output 'y'"):
        client.infer("echo", [input_of(library, "f32", array_of("f32"))],
                     outputs=[library.InferRequestedOutput("y")])  # fmt: skip


def test_asynchronous_requests(client, library):
    array = array_of("f32")
    if library is httpclient:
        pending = [client.async_infer("echo", [input_of(library, "f32", array)]) for _ in range(8)]
        results = [request.get_result(timeout=10) for request in pending]
    else:
        import queue

        done = queue.Queue()
        for _ in range(8):
            client.async_infer("echo", [input_of(library, "f32", array)],
                               callback=lambda result, error: done.put((result, error)))  # fmt: skip
        results = [result for result, error in (done.get(timeout=10) for _ in range(8)) if not error]
    assert len(results) == 8
    assert all((result.as_numpy("out_f32") == array).all() for result in results)


@pytest.mark.parametrize("name", [name for name in DTYPES if name not in ("f16", "bf16")])
def test_json_data_over_http(ports, name):
    client = httpclient.InferenceServerClient(f"127.0.0.1:{ports['http']}")
    array = array_of(name)
    result = client.infer(
        "echo",
        [input_of(httpclient, name, array, binary_data=False)],
        outputs=[httpclient.InferRequestedOutput("out_" + name, binary_data=False)],
    )
    assert (result.as_numpy("out_" + name) == array).all()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression_over_http(ports, algorithm):
    client = httpclient.InferenceServerClient(f"127.0.0.1:{ports['http']}")
    array = np.zeros((300, 500), np.float32)
    result = client.infer(
        "echo",
        [input_of(httpclient, "f32", array)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert (result.as_numpy("out_f32") == array).all()


def test_compression_over_grpc(ports):
    client = grpcclient.InferenceServerClient(f"127.0.0.1:{ports['grpc']}")
    array = np.zeros((300, 500), np.float32)
    result = client.infer("echo", [input_of(grpcclient, "f32", array)], compression_algorithm="gzip")
    assert (result.as_numpy("out_f32") == array).all()


def test_asyncio_client_over_http(ports):
    async def run():
        client = aioclient.InferenceServerClient(f"127.0.0.1:{ports['http']}")
        assert (await client.get_model_metadata("echo"))["name"] == "echo"
        array = array_of("f32", (50, 100))
        inputs = [input_of(aioclient, "f32", array)]
        results = await asyncio.gather(*(client.infer("echo", inputs) for _ in range(4)))
        assert all((result.as_numpy("out_f32") == array).all() for result in results)
        await client.close()

    asyncio.run(run())


def test_health_and_reflection_over_grpc(ports):
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{ports['grpc']}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=10) == b"\x08\x01"
        assert check(b"\x0a\x04echo", timeout=10) == b"\x08\x01"
        reflect = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )
        listing = next(reflect(iter([b"\x3a\x00"]), timeout=10))
        assert b"inference.GRPCInferenceService" in listing and b"grpc.health.v1.Health" in listing


def test_metrics_count_the_requests(ports):
    text = urllib.request.urlopen(f"http://127.0.0.1:{ports['metrics']}/metrics", timeout=10).read()
    assert b'echelon_requests_total{model="echo",rank="0",code="OK"}' in text
