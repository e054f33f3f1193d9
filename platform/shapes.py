"""The service models: botocore's own, with the extensions under `model/` merged in. They are the API's contract.

Only loading happens here; `validation` and `wire` read the shapes. A boto3 client whose AWS_DATA_PATH is MODEL_PATH
loads the very same extensions.
"""

from __future__ import annotations

import functools
from pathlib import Path

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel

MODEL_PATH = Path(__file__).parent / "model"
"""The folder to give to clients as AWS_DATA_PATH."""

TARGET_PREFIXES = {"SageMaker": "sagemaker", "Logs_20140328": "logs"}
"""What stands before the dot in X-Amz-Target, and the service that it means."""


@functools.cache
def service_model(service: str) -> ServiceModel:
    """Load a service's model (`sagemaker`, `logs` or `sts`) with our extensions."""
    return ServiceModel(_loader().load_service_model(service, "service-2"), service)


@functools.cache
def operation_model(service: str, operation: str) -> OperationModel | None:
    """Find an operation of a service, None where neither AWS nor the extensions have it."""
    model = service_model(service)
    return model.operation_model(operation) if operation in model.operation_names else None


@functools.cache
def _loader() -> Loader:
    """Look in our folder and in botocore's, not in the `~/.aws/models` of whoever runs the server."""
    return Loader(extra_search_paths=[str(MODEL_PATH), Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)
