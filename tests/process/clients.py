"""What tests ask a pipeline with: tritonclient as it is, and the oracle's cases."""

import os
import pathlib

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from geventhttpclient.response import HTTPConnectionClosed
from pipeline import ROOT
from safetensors.numpy import load_file
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

ORACLE = pathlib.Path(os.environ.get("ECHELON_ORACLE", ROOT / "build/oracle"))


class Case:
    """A model of the oracle and what eager PyTorch answers to its runs."""

    def __init__(self, name):
        self.name, folder = name, ORACLE / name
        assert folder.is_dir(), f"no {folder}: tests/oracle/make_models.py writes it"
        self.model = folder / "model.pt2"
        self.runs = []
        for index in range(len(list(folder.glob("run*.safetensors")))):
            tensors = load_file(folder / f"run{index}.safetensors")
            pick = lambda kind: {  # noqa: E731
                k.removeprefix(kind): v for k, v in tensors.items() if k.startswith(kind)
            }
            self.runs.append((pick("input."), pick("output.")))

    def largest(self):
        """The run of the most rows."""
        return max(self.runs, key=lambda run: len(next(iter(run[0].values()))))


class Refused(Exception):
    """code: a gRPC status name, an HTTP status, or CONNECTION when there is none to be had."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


class Client:
    """One door of a pipeline. Not for several threads at once."""

    def __init__(self, kind, endpoints, name=None, timeout_s=60, binary=True):
        self.kind, self.name, self.binary = kind, name or endpoints.name, binary
        self.library = grpcclient if kind == "grpc" else httpclient
        self.timeout_s = timeout_s
        if kind == "grpc":
            self.client = grpcclient.InferenceServerClient(endpoints.grpc)
        else:
            self.client = httpclient.InferenceServerClient(
                endpoints.http, network_timeout=timeout_s, connection_timeout=timeout_s
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def infer(self, inputs, outputs=()):
        """{name: array} of every output, or of those named."""
        http = self.kind == "http"
        how = {"binary_data": self.binary} if http else {}
        given = [
            self.library.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            for name, array in inputs.items()
        ]
        for tensor, array in zip(given, inputs.values(), strict=True):
            tensor.set_data_from_numpy(array, **how)
        options = {} if http else {"client_timeout": self.timeout_s}
        if not outputs:
            described = self.client.get_model_metadata(
                self.name, **({} if http else {"as_json": True, "client_timeout": self.timeout_s})
            )
            outputs = [output["name"] for output in described["outputs"]]
        wanted = [self.library.InferRequestedOutput(name, **how) for name in outputs]
        result = self.client.infer(self.name, given, outputs=wanted, **options)
        return {name: result.as_numpy(name) for name in outputs}

    def answer(self, inputs, outputs=()):
        """As infer; whatever goes wrong is Refused."""
        try:
            return self.infer(inputs, outputs)
        except InferenceServerException as error:
            code = (error.status() or "").removeprefix("StatusCode.")
            raise Refused(code, error.message()) from None
        except (OSError, HTTPConnectionClosed) as error:
            raise Refused("CONNECTION", str(error)) from None


UNAVAILABLE = {"grpc": "UNAVAILABLE", "http": "503"}


def assert_equal(got, want, tolerance=0.0):
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert got[name].dtype == array.dtype and got[name].shape == array.shape, name
        if tolerance == 0:
            np.testing.assert_array_equal(got[name], array, err_msg=name)
        else:
            np.testing.assert_allclose(
                got[name], array, rtol=tolerance, atol=tolerance, err_msg=name
            )
