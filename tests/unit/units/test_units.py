"""What do units say of a host, and is every character of a path its own?"""

from __future__ import annotations

import pytest

from orchestrator.supervisor.core import Timing
from orchestrator.units import Host, Placement, generic, is_as_written, quoted, signed, socket_unit, stop_seconds, units


def drop_in(host: Host, name: str | None = None) -> str:
    return next(file.text for file in units("/p/orchestrator", name, host, 30.0) if file.path.endswith(".conf"))


def host(**changes: object) -> Host:
    given: dict[str, object] = {
        "placement": Placement(), "drain_seconds": 30.0, "layout": "/etc/orchestrator/layout.yaml", "listen": "127.0.0.1:8080",
    }  # fmt: skip
    return Host(**{**given, **changes})  # type: ignore[arg-type]


def test_the_cpuset_of_a_plan_is_written_as_lists() -> None:
    text = drop_in(host(placement=Placement(frozenset({0, 1, 2, 8}), frozenset({1}))))
    assert "\nAllowedCPUs=0-2,8\n" in text
    assert "\nAllowedMemoryNodes=1\n" in text


def test_a_plan_that_is_not_confined_says_why() -> None:
    text = drop_in(host(placement=Placement(unconfined="It would plan otherwise")))
    assert "# It would plan otherwise: no AllowedCPUs=.\n" in text
    assert "\nAllowedCPUs" not in text


def test_the_layout_of_the_unit_is_not_said_again_another_one_is() -> None:
    assert "ExecStart" not in drop_in(host())
    assert "ExecStart=\nExecStart=/p/orchestrator up --layout /srv/x.yaml\n" in drop_in(host(layout="/srv/x.yaml"))
    assert "ExecStart=\nExecStart=/p/orchestrator up\n" in drop_in(host(layout=None))
    assert "ExecStart" not in drop_in(host(layout="/etc/orchestrator/blue.yaml"), "blue")


@pytest.mark.parametrize("drain", [0.0, 7.5, 30.0, 3600.0])
def test_systemd_waits_longer_for_a_stop_than_the_supervisor_can_take(drain: float) -> None:
    timing = Timing(drain=drain)
    ending = timing.stop + timing.kill
    gateways, router, workers = drain + ending, drain + ending, ending
    assert stop_seconds(drain) > gateways + router + workers


def test_a_named_service_has_folders_a_user_and_a_socket_of_its_own() -> None:
    files = {file.path: file.text for file in units("/p/orchestrator", "blue", host(), 30.0)}
    assert set(files) == {
        "orchestrator.slice", "orchestrator@.service", "orchestrator@blue.service.d/10-host.conf", "orchestrator@blue.socket",
    }  # fmt: skip
    template = files["orchestrator@.service"]
    for key in ("RuntimeDirectory", "CacheDirectory", "LogsDirectory", "User"):
        assert f"\n{key}=orchestrator-%i\n" in template
    assert "Service=orchestrator@blue.service" in files["orchestrator@blue.socket"]


def test_at_boot_it_waits_for_what_the_program_and_its_files_lie_on() -> None:
    text = drop_in(host(mounts=("/opt/x y/bin/orchestrator", "/srv/models")))
    assert '\nRequiresMountsFor="/opt/x y/bin/orchestrator"\nRequiresMountsFor=/srv/models\n' in text
    assert text.index("[Unit]") < text.index("RequiresMountsFor") < text.index("[Service]")


@pytest.mark.parametrize(
    ("listen", "early"),
    [
        ("127.0.0.1:80", False),
        ("0.0.0.0:80", False),
        ("[::]:80", False),
        ("192.0.2.1:80", True),
        ("[fe80::1%2]:80", True),
    ],
)
def test_an_address_that_comes_with_the_network_is_bound_before_it_is_there(listen: str, early: bool) -> None:
    text = socket_unit("orchestrator", listen)
    assert f"\nListenStream={listen}\n" in text
    assert ("\nFreeBind=yes\n" in text) == early


def test_without_a_fixed_port_there_is_no_socket_unit() -> None:
    files = units("/p/orchestrator", None, host(listen=None), 30.0)
    assert not [file for file in files if file.path.endswith(".socket")]
    assert "Requires=" not in drop_in(host(listen=None))


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("/opt/orchestrator", "/opt/orchestrator"),
        ("/opt/my program", '"/opt/my program"'),
        ("/opt/100%", "/opt/100%%"),
        ("/opt/$HOME", "/opt/$$HOME"),
        ('/opt/a"b\\c', '"/opt/a\\"b\\\\c"'),
    ],
)
def test_every_character_of_a_command_means_itself(word: str, written: str) -> None:
    assert quoted([word]) == written


def test_a_file_that_somebody_changed_is_known() -> None:
    text = signed("[Service]\nRestart=no\n")
    assert is_as_written(text)
    assert not is_as_written(text.replace("no", "always"))
    assert not is_as_written("[Service]\n")
    assert not is_as_written("")


def test_units_for_no_host_name_no_folder_of_the_machine_they_were_made_on() -> None:
    for file in generic(30.0):
        assert "/root/" not in file.text
        assert "/home/" not in file.text.replace("below /home", "")
