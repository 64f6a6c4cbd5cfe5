"""What the JobSet manifest asks for, and the manifest against the published schema, where a copy is named."""

import argparse
import os
import pathlib
from typing import Any

import pytest

from prompt_tuning.launch import gke_jobset
from prompt_tuning.launch.programs import read_program
from prompt_tuning.run import preemption


def _manifest(topology="v6e:4x4", **more):
    program = read_program(["train", "--gin.MODEL_DIR='gs://b/r'", "--gin.X='$HOME'"])
    settings = {"spot": True, "max_crashes": 3, "service_account": "trainer", **more}
    where = {"project": "p", "location": "l", "cluster": "c", "image": "image", "name": "xxl"}
    flags = argparse.Namespace(topology=topology, **where, **settings)
    return gke_jobset.JobSet(flags, program).manifest()


@pytest.mark.parametrize(
    ("topology", "accelerator", "pods", "chips"),
    [
        ("v4:2x2x1", "tpu-v4-podslice", 1, 4),
        ("v5e:2x4", "tpu-v5-lite-podslice", 1, 8),
        ("v6e:4x4", "tpu-v6e-slice", 4, 4),
        ("tpu7x:2x2x2", "tpu7x", 2, 4),
    ],
)
def test_every_vm_of_the_slice_runs_one_pod(topology, accelerator, pods, chips):
    job = _manifest(topology)["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == job["completions"] == pods
    pod = job["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == accelerator
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == topology.partition(":")[2]
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": chips}


def test_a_notice_restarts_without_end_and_a_crash_does_not():
    spec = _manifest()["spec"]
    (rule,) = spec["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert spec["failurePolicy"]["maxRestarts"] == 3
    disruption, code = spec["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]
    assert disruption["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert code["onExitCodes"]["values"] == [preemption.EXIT_CODE]
    assert {disruption["action"], code["action"]} == {"FailJob"}


@pytest.mark.parametrize("topology", ["v5e:2x4", "v6e:4x4", "tpu7x:2x2x2"])
def test_the_published_schema_accepts_it(topology):
    path = os.environ.get("JOBSET_CRD")
    if path is None:
        pytest.skip(
            "JOBSET_CRD names no copy of jobset.x-k8s.io_jobsets.yaml (docs/machines/gke.md)"
        )
    yaml = pytest.importorskip("yaml")
    jsonschema = pytest.importorskip("jsonschema")
    crd = yaml.safe_load(pathlib.Path(path).read_text(encoding="utf-8"))
    (version,) = [v for v in crd["spec"]["versions"] if v["name"] == "v1alpha2"]
    schema = version["schema"]["openAPIV3Schema"]
    _forbid_unknown_fields(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    validator = jsonschema.Draft202012Validator(schema)
    made = _manifest(topology)
    validator.validate(made)
    made["spec"]["failurePolicy"]["rules"][0]["reason"] = "mistyped"
    with pytest.raises(jsonschema.ValidationError, match="reason"):
        validator.validate(made)


def _forbid_unknown_fields(schema: Any) -> None:
    """Kubernetes drops fields that it does not know, silently; here they are errors."""
    if isinstance(schema, dict):
        if schema.get("x-kubernetes-int-or-string"):
            schema.pop("type", None)
            schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
        elif schema.get("type") == "object" and "properties" in schema:
            schema.setdefault("additionalProperties", False)
        for value in list(schema.values()):
            _forbid_unknown_fields(value)
    elif isinstance(schema, list):
        for value in schema:
            _forbid_unknown_fields(value)
