import jax
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.training.cost import topology
from gpicl_flax.training.partitioning import MeshShape


@pytest.mark.parametrize(
    "name, chip, num_chips", [("v5e:4x4x1", "v5e", 16), ("v6e:2x2", "v6e", 4), ("v4:2x2x2", "v4", 8)]
)
def test_a_topology_names_its_chip_and_how_many_there_are(name, chip, num_chips):
    kind, number = topology.parse(name)
    assert (kind.name, number) == (chip, num_chips)


@pytest.mark.parametrize("name", ["v5e", "v5e:16", "v5e:4x4x1x1", "4x4x1", "v5litepod-16", "v3:2x2"])
def test_other_forms_and_chips_are_refused(name):
    with pytest.raises(UsageError, match="a topology is CHIP:AxBxC|no TPU chip"):
        topology.parse(name)


def test_a_mesh_can_be_of_other_devices_than_all():
    devices = jax.devices()[2:6]
    mesh = MeshShape(model=2).build(devices=devices)
    assert dict(mesh.shape) == {"member": 1, "data": 2, "fsdp": 1, "model": 2} and set(mesh.devices.flat) == set(
        devices
    )
    assert MeshShape().build(8, devices).shape["member"] == 4
    with pytest.raises(UsageError, match="do not fit 4 device"):
        MeshShape(data=8).build(devices=devices)
