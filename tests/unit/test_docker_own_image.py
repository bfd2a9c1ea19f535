"""The command line in a container of the node image must know that image instead of building it again."""

from __future__ import annotations

from testbed.engines.docker.image import own_container

ID = "7f872dffac7b984208ce227d2c5fb1151671000dfcf9671ec52a850663c6aa54"
ROOT = "528 511 0:40 / / rw,relatime - overlay overlay rw"
HOSTNAME = f"529 511 254:0 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/vda rw"
STATE = "530 511 0:25 /testbed /run/testbed rw - tmpfs tmpfs rw"


def test_a_container_is_known_by_its_hostname_file() -> None:
    assert own_container(f"{ROOT}\n{HOSTNAME}\n{STATE}") == ID


def test_a_machine_is_no_container() -> None:
    assert own_container(f"{ROOT}\n{STATE}") is None
    assert own_container(HOSTNAME.replace("/etc/hostname", "/mnt/hostname")) is None


def test_code_mounted_over_the_image_is_not_the_image() -> None:
    mounted = "531 511 254:0 /home/me/testbed /opt/testbed/testbed rw - ext4 /dev/vda rw"
    assert own_container(f"{ROOT}\n{HOSTNAME}\n{mounted}") is None
