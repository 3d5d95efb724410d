"""The reflecting gRPC client, against a small server that can be told how to fail."""

import datetime
import ipaddress
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from interlock_servers.transports.grpc_descriptors import MethodNeed
from interlock_servers.transports.grpc_reflection import ReflectedChannel, quoted
from interlock_servers.transports.grpc_settings import GrpcSettings
from interlock_tools.clock import ManualClock
from interlock_tools.errors import (
    ComponentError,
    ConflictError,
    FactoryError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)
from tests.servers.reflecting_valve import Valve, WakefulClock, running

PATIENCE_S = 20.0
READ = MethodNeed(
    "/test.Valve/Read", is_read=True, request=("name:text",), response=("open?:bool",)
)
WATCH = MethodNeed("/test.Valve/Watch", is_read=True, streams=True, response=("tags{}.note:text",))
TURN = MethodNeed("/test.Valve/Turn", is_read=False, request=("degrees[]:number",))
NEEDS = (READ, WATCH, TURN)
Code = grpc.StatusCode


def channel(
    valve: Valve, clock: ManualClock | None = None, needs: Sequence[MethodNeed] = NEEDS
) -> ReflectedChannel:
    """A plain channel to the valve."""
    settings = GrpcSettings(address=valve.address, tls=False)
    return ReflectedChannel(settings, clock or WakefulClock(), component="valve", needs=needs)


# ── learning ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("generation", ["v1", "v1alpha"])
async def test_messages_are_learnt_from_either_generation_of_reflection(generation: str) -> None:
    """Servers in the field offer one or the other."""
    with anyio.fail_after(PATIENCE_S):
        async with running(Valve(), generation=generation) as valve, channel(valve) as connection:
            answer = await connection.unary(READ.path, {"name": "v1"}, deadline_s=5)
            stream = await connection.stream(WATCH.path, {}, deadline_s=5)
            assert connection.message_class("test.Ask").DESCRIPTOR.full_name == "test.Ask"
            with pytest.raises(ComponentError, match=r"test\.Nothing"):
                connection.message_class("test.Nothing")
    assert answer.structure("extra") == {"deep": {"list": [1.0, "two", None, True]}}
    assert [part.records_by_key("tags")["key"].text("note") for part in stream] == [
        "first",
        "second",
    ]


async def test_what_is_absent_is_not_zero_and_not_false() -> None:
    """A field without presence cannot tell zero from nothing: then it is nothing."""
    with anyio.fail_after(PATIENCE_S):
        async with running(Valve()) as valve, channel(valve) as connection:
            answer = await connection.unary(READ.path, {}, deadline_s=5)
    assert answer.number("flow") is None
    assert answer.known_whole("open") is None
    assert not answer.has_field("colour")
    with pytest.raises(KeyError):
        answer.text("colour")


@pytest.mark.parametrize(
    ("need", "named"),
    [
        (MethodNeed("/test.Pump/Read", is_read=True), "test.Pump"),
        (MethodNeed("/test.Valve/Close", is_read=False), "/test.Valve/Close"),
        (MethodNeed("/test.Valve/Watch", is_read=True), "streaming"),
        (MethodNeed("/test.Valve/Read", is_read=True, request=("size:number",)), r"Ask\.size"),
        (MethodNeed("/test.Valve/Read", is_read=True, request=("name:number",)), "as number"),
        (MethodNeed("/test.Valve/Read", is_read=True, request=("name[]:text",)), "as a list"),
        (MethodNeed("/test.Valve/Read", is_read=True, request=("degrees:number",)), "as one"),
        (MethodNeed("/test.Valve/Read", is_read=True, response=("tags[].note",)), "as a list"),
        (MethodNeed("/test.Valve/Read", is_read=True, response=("flow?:number",)), "be absent"),
        (MethodNeed("/test.Valve/Read", is_read=True, response=("extra:timestamp",)), "timestamp"),
        (MethodNeed("/test.Valve/Read", is_read=True, response=("flow.deep:text",)), "flow"),
    ],
)
async def test_what_we_need_and_is_absent_is_refused_by_name(need: MethodNeed, named: str) -> None:
    """Before the first call: protobuf drops in silence what it does not know."""
    with anyio.fail_after(PATIENCE_S):
        async with running(Valve()) as valve:
            with pytest.raises(ComponentError, match=named) as caught:
                await channel(valve, needs=[need]).__aenter__()
    assert caught.value.code == "UNSUPPORTED"
    assert valve.calls == []


# ── failing ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (Code.NOT_FOUND, NotFoundError),
        (Code.INVALID_ARGUMENT, InvalidRequestError),
        (Code.FAILED_PRECONDITION, ConflictError),
        (Code.ABORTED, ConflictError),
        (Code.UNAVAILABLE, UnavailableError),
        (Code.DEADLINE_EXCEEDED, UnavailableError),
        (Code.CANCELLED, UnavailableError),
        (Code.INTERNAL, ComponentError),
        (Code.UNKNOWN, ComponentError),
        (Code.PERMISSION_DENIED, ComponentError),
        (Code.RESOURCE_EXHAUSTED, ComponentError),
    ],
)
@pytest.mark.parametrize("need", NEEDS, ids=lambda need: need.name)
async def test_each_code_is_the_error_that_says_what_to_do_next(
    need: MethodNeed, code: grpc.StatusCode, expected: type[FactoryError]
) -> None:
    """Named by what the caller does next; after a write that may have acted, it says so."""
    fields = {} if need.is_read else {"degrees": [90.0]}
    with anyio.fail_after(PATIENCE_S):
        async with running(Valve(*[code] * 2)) as valve, channel(valve) as connection:
            call = connection.stream if need.streams else connection.unary
            with pytest.raises(expected, match=code.name) as caught:
                await call(need.path, fields, deadline_s=5)
    assert type(caught.value) is expected or issubclass(type(caught.value), expected)
    says_unknown = "is unknown: read it back" in str(caught.value)
    certain = {NotFoundError, InvalidRequestError, ConflictError}
    sure = need.is_read or expected in certain or code is Code.PERMISSION_DENIED
    assert says_unknown == (not sure)


async def test_only_reads_are_retried_and_only_once() -> None:
    """Trap: a write that is sent twice may act twice."""
    clock = WakefulClock()
    with anyio.fail_after(PATIENCE_S):
        async with running(Valve(Code.UNAVAILABLE)) as valve, channel(valve, clock) as connection:
            await connection.unary(READ.path, {}, deadline_s=5)
            assert (valve.calls, clock.slept_s) == (["read", "read"], [1.0])
            valve.codes = [Code.UNAVAILABLE] * 3
            with pytest.raises(UnavailableError, match="nothing was changed"):
                await connection.stream(WATCH.path, {}, deadline_s=5)
            assert valve.calls[2:] == ["watch", "watch"]
            with pytest.raises(UnavailableError, match="is unknown"):
                await connection.unary(TURN.path, {"degrees": [90]}, deadline_s=5)
    assert valve.calls[4:] == ["turn"]
    assert clock.slept_s == [1.0, 1.0]


async def test_a_read_that_failed_otherwise_is_not_retried() -> None:
    """A deadline that passed would only pass again."""
    with anyio.fail_after(PATIENCE_S):
        async with running(Valve(Code.DEADLINE_EXCEEDED)) as valve, channel(valve) as connection:
            with pytest.raises(UnavailableError):
                await connection.unary(READ.path, {}, deadline_s=5)
    assert valve.calls == ["read"]


async def test_arguments_that_do_not_fit_the_message_are_never_sent() -> None:
    """A field that the server does not have is an error, not a field to drop."""
    with anyio.fail_after(PATIENCE_S):
        async with running(Valve()) as valve, channel(valve) as connection:
            for fields in ({"nmae": "v1"}, {"degrees": ["ninety"]}, {"name": 7}):
                with pytest.raises(InvalidRequestError):
                    await connection.unary(READ.path, fields, deadline_s=5)
    assert valve.calls == []


async def test_a_cancelled_caller_stays_cancelled() -> None:
    """In the middle of a call, the scope that ends it gets its own cancellation back."""
    with anyio.fail_after(PATIENCE_S):
        async with running(Valve()) as valve, channel(valve) as connection:
            valve.holds = True
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:
                    call = partial(connection.unary, READ.path, {}, deadline_s=15)
                    group.start_soon(call)
                    await valve.came_in.wait()
                    scope.cancel()
    assert scope.cancelled_caught
    assert valve.calls == ["read"]


async def test_a_connection_that_is_closed_under_a_write_leaves_it_unknown() -> None:
    """The library cancels the call; unchanged, that would end the caller's task without a word."""
    caught: list[UnavailableError] = []

    async def turn(connection: ReflectedChannel) -> None:
        try:
            await connection.unary(TURN.path, {"degrees": [90]}, deadline_s=15)
        except UnavailableError as error:
            caught.append(error)

    with anyio.fail_after(PATIENCE_S):
        async with (
            running(Valve()) as valve,
            anyio.create_task_group() as group,
            channel(valve) as connection,
        ):
            valve.holds = True
            group.start_soon(turn, connection)
            await valve.came_in.wait()
    assert len(caught) == 1
    assert "is unknown: read it back" in str(caught[0])


async def test_a_closed_connection_says_that_nothing_was_sent() -> None:
    """Late callers get an answer, not a hang."""
    with anyio.fail_after(PATIENCE_S):
        async with running(Valve()) as valve:
            async with channel(valve) as connection:
                pass
            with pytest.raises(UnavailableError, match="nothing was sent"):
                await connection.unary(TURN.path, {}, deadline_s=5)


def test_a_servers_text_is_quoted_and_cut() -> None:
    """It is data: it may hold line breaks and orders to a model."""
    assert quoted("a\nb") == "'a\\nb'"
    assert len(quoted("x" * 10_000)) < 250


# ── who we are ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("address", ["dps.example.com:443", "10.0.0.7:50051", "[2001:db8::1]:443"])
def test_a_token_is_never_sent_in_the_clear(address: str) -> None:
    """Except to this machine, where it crosses no network."""
    with pytest.raises(ValidationError, match="in the clear"):
        GrpcSettings(address=address, tls=False, token_file=Path("token"))
    GrpcSettings(address=address, tls=True, token_file=Path("token"))
    for here in ("localhost:1", "127.0.0.1:1", "[::1]:1"):
        GrpcSettings(address=here, tls=False, token_file=Path("token"))


@pytest.mark.parametrize("address", ["http://h:1", "host", "host:0", "host:70000", ":12", "::1:5"])
def test_an_address_is_host_and_port(address: str) -> None:
    """A scheme would make gRPC resolve something else than was meant."""
    with pytest.raises(ValidationError, match="host:port"):
        GrpcSettings(address=address)


async def test_a_renewed_token_is_used_at_the_next_call(tmp_path: Path) -> None:
    """It is read at every call, and sent as a bearer token."""
    secret = tmp_path / "token"
    secret.write_text("first\n")
    with anyio.fail_after(PATIENCE_S):
        async with running(Valve()) as valve:
            settings = GrpcSettings(address=valve.address, tls=False, token_file=secret)
            async with ReflectedChannel(
                settings, WakefulClock(), component="valve", needs=NEEDS
            ) as connection:
                await connection.unary(READ.path, {}, deadline_s=5)
                secret.write_text("second\n")
                await connection.unary(READ.path, {}, deadline_s=5)
                secret.write_text("")
                with pytest.raises(InvalidRequestError, match="bearer token"):
                    await connection.unary(READ.path, {}, deadline_s=5)
    assert valve.tokens == ["Bearer first", "Bearer second"]


async def test_tls_is_checked_against_the_authority_that_we_name(
    tmp_path: Path,
) -> None:
    """With the right one the token arrives; with another the server is nobody."""
    (tmp_path / "token").write_text("over-tls")
    for name in ("right", "wrong"):
        key, certificate = self_signed()
        (tmp_path / f"{name}.key").write_bytes(key)
        (tmp_path / f"{name}.crt").write_bytes(certificate)
    pair = ((tmp_path / "right.key").read_bytes(), (tmp_path / "right.crt").read_bytes())

    def trusting(name: str) -> ReflectedChannel:
        settings = GrpcSettings(
            address=valve.address, ca_file=tmp_path / f"{name}.crt", token_file=tmp_path / "token"
        )
        return ReflectedChannel(settings, WakefulClock(), component="valve", needs=NEEDS)

    with anyio.fail_after(PATIENCE_S):
        async with running(Valve(), tls=grpc.ssl_server_credentials([pair])) as valve:
            async with trusting("right") as connection:
                await connection.unary(READ.path, {}, deadline_s=5)
            with pytest.raises(UnavailableError):
                await trusting("wrong").__aenter__()
    assert valve.tokens == ["Bearer over-tls"]


def self_signed() -> tuple[bytes, bytes]:
    """A key and a certificate of 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "valve")])
    now = datetime.datetime.now(datetime.UTC)  # the TLS library has no injected clock
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return (
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        certificate.public_bytes(serialization.Encoding.PEM),
    )
