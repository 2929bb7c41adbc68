"""Clients of the storage server."""

import gcsfs
import pytest


@pytest.fixture
def fs(gcs):
    return gcsfs.GCSFileSystem(use_listings_cache=False, skip_instance_cache=True)


@pytest.fixture
def google(gcs):
    """google-cloud-storage's client and its bucket."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    client = storage.Client(credentials=AnonymousCredentials(), project="project")
    yield client, client.bucket("bucket")
    client.close()
