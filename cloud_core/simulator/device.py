"""A simulated device: what it does in each state, and how it takes what it hears."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_core.simulator import bodies, tally
from cloud_core.simulator.bodies import Granted, Refused
from cloud_core.simulator.lines import limit_of
from cloud_core.simulator.links import Link
from cloud_core.simulator.plan import DevicePlan, Fault, Kind, Profile
from cloud_core.simulator.states import FINAL, NEXT, Event, State
from shared.credentials import Credentials, X509Certificate

if TYPE_CHECKING:
    from cloud_core.simulator.fleet import Fleet

ANSWER_S, COAP_ANSWER_S = 60.0, 200.0
"""How long a device waits for any answer: as ThingsBoard's own client; over CoAP retransmission ends before that."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
PING_S = 100.0
WRONG_ATTEMPTS, WRONG_ASKS = 3, 10
"""After so many refusals of its secret, or refusals of any kind, a device with a wrong secret is left alone."""
BREAK_CHANCE = 0.3
"""How often the connection of a device with the fault `reconnect` breaks behind a report."""
SECOND_ANSWER_S = 5.0
AWAY_S = 2.0
"""Within which those come back whose connections a storm has broken."""
SLEEP_S = 1.0
"""The least that a device sleeps that has given its connection up."""


def backoff_s(attempt: int, draw: float) -> float:
    """The wait before attempt `attempt` + 1: doubled each time, anywhere between half and all of it."""
    longest_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(attempt - 1, 10))
    return longest_s * (0.5 + draw / 2)


def told_wait_s(retry_after_s: float, draw: float) -> float:
    """At least as long as it was told, spread so that not all come back together."""
    return retry_after_s * (1.0 + draw / 2)


class Device:
    """One of the fleet. Its timer wakes it in its state; its link tells it what happens."""

    __slots__ = (
        "_asked_s", "_fails", "_fleet", "_granted", "_has_asked", "_has_room", "_has_second", "_is_acked",
        "_is_from_before", "_is_guess", "_is_login", "_is_queued", "_link", "_loses_answer", "_may_exist",
        "_next_report_s", "_powered_s", "_reason", "_reports", "_sent_s", "_tries", "credentials", "identity_pem",
        "is_back", "is_home", "plan", "state", "ticket",
    )  # fmt: skip

    def __init__(self, fleet: Fleet, plan: DevicePlan, credentials: Credentials | None, identity_pem: str) -> None:
        """`identity_pem`: certificate, issuers and key of one that logs in by certificate."""
        self._fleet = fleet
        self.plan = plan
        self.credentials = credentials
        self.state = State.OFF
        self.ticket = 0
        self.identity_pem = identity_pem
        self.is_home = False  # its report has been stored (since the storm, if there was one)
        self.is_back = False  # it went through a storm
        self._is_from_before = credentials is not None
        self._loses_answer = Fault.LOST_ANSWER in plan.faults and plan.transport != "coap"  # there the link loses it
        self._has_asked = self._has_room = self._is_acked = self._has_second = self._is_queued = False
        self._is_guess = False  # it tries credentials that it had proposed
        self._is_login = False  # the report on the way goes with a login
        self._may_exist = False  # a request of this run went unanswered, and may have made the device
        self._granted: Credentials | None = None
        self._link: Link | None = None
        self._fails = 0  # attempts since the last success
        self._tries = 0  # provision requests that were answered with a refusal as expected
        self._reports = 0
        self._reason = ""
        self._powered_s = self._asked_s = self._sent_s = self._next_report_s = 0.0

    # what the clock says

    def wake(self) -> None:
        """Its time has come."""
        match self.state:
            case State.OFF:
                self._power_on()
            case State.POWERED | State.PROVISIONED | State.ASLEEP:
                self._try()
            case State.PROVISIONING if self._granted is not None:
                self._grant(self._granted)  # the second answer has stayed out
            case State.PROVISIONING | State.CONNECTING:
                self._drop()
                self.broken(f"no answer within {ANSWER_S:.0f} s")
            case State.ONLINE:
                self._online_turn()

    def room_granted(self) -> None:
        """A connection is free for it; a device that is not waiting any more passes it on."""
        self._has_room, self._is_queued = True, False
        if self.state in (State.POWERED, State.PROVISIONED, State.ASLEEP, State.ONLINE):
            self._go()
        else:
            self._release()

    def yield_room(self) -> None:
        """Somebody else needs its connection more; it comes back for its next report."""
        if self.state is State.ONLINE and self._is_acked and self._has_room:
            self._drop()
            self._to(Event.SLEEP)
            self._fleet.clock.after(max(SLEEP_S, self._next_report_s - self._fleet.clock.now_s), self)

    def break_down(self) -> None:
        """A storm: its connection, if any, is broken, and it comes back soon."""
        if self.state in FINAL or self.state in (State.OFF, State.POWERED, State.PROVISIONING):
            return
        self.is_back = True
        self._drop(abruptly=True)
        self._to(Event.LOST)
        self._fleet.clock.after(self._fleet.random() * AWAY_S, self)

    def _power_on(self) -> None:
        self._powered_s = self._fleet.clock.now_s
        self._fleet.mark(tally.POWERED)
        self._to(Event.POWER_ON if self.credentials is None else Event.POWER_ON_KNOWN)
        self._try()

    def _try(self) -> None:
        """Asks or connects, as soon as there is room."""
        give_up_s = self._fleet.plan.give_up_s
        if not self.is_home and self._fleet.clock.now_s - self._powered_s > give_up_s:
            if Fault.WRONG_SECRET in self.plan.faults:
                self._refused_as_expected()
            else:
                self._give_up(f"not in after {give_up_s:.0f} s; last: {self._reason or 'no turn'}")
            return
        needs_line = self._fleet.needs_line(self.plan)
        if needs_line and not self._has_room:
            if self._is_queued:
                return
            if not self._fleet.room.take(self, is_outside=not self.is_home):
                self._is_queued = True
                return
            self._has_room = True
        self._go()

    def _go(self) -> None:
        try:
            if self.state is State.POWERED:
                self._ask()
            elif self.state is State.ONLINE:
                self._post()
            else:
                self._connect()
        except OSError as error:
            self._no_way_out(error)

    def _ask(self) -> None:
        now_s = self._fleet.clock.now_s
        self._to(Event.ASK)
        self._fleet.attempted(self.plan, is_again=self._has_asked)
        self._has_asked = True
        self._asked_s = now_s
        self._granted = None
        self._link = self._fleet.link(self)
        self._wait_for_answer()
        self._link.ask(self._fleet.request(self.plan))

    def _connect(self) -> None:
        self._to(Event.CONNECT)
        self._is_login = True
        self._link = self._fleet.link(self)
        self._sent_s = self._fleet.clock.now_s
        self._wait_for_answer()
        self._link.connect(self._next_report())

    def _post(self) -> None:
        if self._link is None:
            self._link = self._fleet.link(self)
        self._is_login = False
        self._fleet.room.busy(self)
        self._sent_s = self._fleet.clock.now_s
        self._wait_for_answer()
        self._link.post(self._next_report())

    def _wait_for_answer(self) -> None:
        self._fleet.clock.after(ANSWER_S if self._fleet.needs_line(self.plan) else COAP_ANSWER_S, self)

    def _next_report(self) -> bytes:
        self._reports += 1
        self._is_acked = False
        self._fleet.tally.count("reports tried")
        return bodies.report(self._reports, self.plan.number)

    def _online_turn(self) -> None:
        if not self._is_acked:
            self._drop()
            self.broken(f"no answer within {ANSWER_S:.0f} s")
        elif self._fleet.clock.now_s + 0.001 < self._next_report_s:
            if self._link is not None:
                self._link.ping()
            self._sleep_until_report()
        elif self._link is None and self._fleet.needs_line(self.plan):
            self._try()
        else:
            self._go()

    # what the link says

    def answered(self, body: bytes, retry_after_s: float | None) -> None:
        if self.state is not State.PROVISIONING:
            return
        if self._loses_answer:
            self._loses_answer = False
            self._fleet.faulted(Fault.LOST_ANSWER)
            self._drop(abruptly=True)
            self._may_exist = isinstance(bodies.read_answer(body), Granted)
            self._put_off("answer lost", None)
            return
        answer = bodies.read_answer(body)
        if isinstance(answer, Granted):
            self._take(answer)
        elif self._granted is not None:
            self._grant(self._granted)  # a second request is refused where the profile allows no replay
        else:
            told = [wait_s for wait_s in (retry_after_s, answer.retry_after_s) if wait_s is not None]
            self._refused(answer, max(told, default=None))

    def accepted(self) -> None:
        if self.state is State.CONNECTING:
            self._to(Event.ACCEPTED)
            self._fails = 0

    def acknowledged(self) -> None:
        if self.state is not State.ONLINE:
            return
        now_s = self._fleet.clock.now_s
        self._fleet.acknowledged(self, now_s - self._sent_s, is_login=self._is_login)
        self._fails = 0
        self._is_acked = True
        if self._link is not None and not self._link.stays:
            self._drop()
        self._next_report_s = now_s + self._fleet.plan.telemetry_every_s * (0.9 + 0.2 * self._fleet.random())
        if self._fleet.plan.profile is Profile.FACTORY_LINE:
            self._drop()
            self._to(Event.SWITCH_OFF)
        elif Fault.RECONNECT in self.plan.faults and self._fleet.random() < BREAK_CHANCE:
            self._fleet.faulted(Fault.RECONNECT)
            self._drop(abruptly=True)
            self._to(Event.LOST)
            self._come_back(None)
        elif self._has_room and self._fleet.room.is_short:
            self.yield_room()
        else:
            self._sleep_until_report()

    def turned_away(self, reason: str, *, retry_after_s: float | None, is_final: bool) -> None:
        self._fleet.tally.error(reason)
        self._reason = reason
        if self.state is State.PROVISIONING:
            self._drop()
            self._put_off(reason, retry_after_s)
        elif self.state is State.ONLINE:
            self._drop()
            self._to(Event.LOST)
            self._come_back(retry_after_s)
        elif self.state is State.CONNECTING and is_final:
            self._disowned(reason)
        elif self.state is State.CONNECTING:
            self._drop()
            self._to(Event.PUT_OFF)
            self._come_back(retry_after_s)

    def broken(self, why: str) -> None:
        self._reason = why
        self._release_link()
        if self.state is State.PROVISIONING and self._granted is not None:
            self._grant(self._granted)
            return
        self._fleet.tally.error(why)
        if self.state is State.PROVISIONING:
            self._may_exist = True
            self._put_off(why, None)
        elif self.state is State.CONNECTING:
            self._to(Event.PUT_OFF)
            self._come_back(None)
        elif self.state is State.ONLINE:
            self._to(Event.LOST)
            self._come_back(None)

    def commanded(self) -> None:
        self._fleet.tally.count("commands answered")

    # provisioning

    def _take(self, answer: Granted) -> None:
        if Fault.WRONG_SECRET in self.plan.faults:
            self._give_up("a wrong secret was let in")
            return
        if self._granted is not None and self._granted != answer.credentials:
            self._give_up("two answers to one request differ")
            return
        self._granted = answer.credentials
        self.identity_pem = answer.chain and answer.chain + self._fleet.key_pem
        if self._link is not None and self._link.awaits_more:
            self._fleet.clock.after(SECOND_ANSWER_S, self)
            return
        if Fault.DUPLICATE in self.plan.faults and self.plan.transport == "http" and not self._has_second:
            self._ask_a_second_time()
            return
        self._grant(answer.credentials)

    def _ask_a_second_time(self) -> None:
        """The same request again, on another connection, before the credentials are used."""
        self._has_second = True
        self._drop_link()
        self._fleet.clock.after(SECOND_ANSWER_S, self)
        self._link = self._fleet.link(self)
        try:
            self._link.ask(self._fleet.request(self.plan))
        except OSError:
            self._release_link()  # no port left: the first answer counts

    def _grant(self, credentials: Credentials) -> None:
        if Fault.DUPLICATE in self.plan.faults:
            self._fleet.faulted(Fault.DUPLICATE)
        self.credentials = credentials
        self._granted = None
        self._drop()
        self._fails = 0
        self._to(Event.GRANTED)
        self._fleet.granted(self, self._asked_s, self._powered_s)
        self._try()

    def _refused(self, answer: Refused, retry_after_s: float | None) -> None:
        reason = self._reason = answer.reason
        is_wrong = Fault.WRONG_SECRET in self.plan.faults
        self._fleet.refused(reason, is_expected=is_wrong)
        self._drop()
        is_for_later = reason in bodies.LATER or reason == bodies.NO_ANSWER
        if is_wrong:
            self._tries += not is_for_later
            if self._tries >= WRONG_ATTEMPTS or self._fails + 1 >= WRONG_ASKS:
                self._refused_as_expected()
            else:
                self._put_off(reason, retry_after_s)
        elif is_for_later:
            self._put_off(reason, retry_after_s)
        elif reason in bodies.TAKEN:
            self._taken(reason)
        else:
            self._give_up(reason + (f" (ref {answer.ref})" if answer.ref else ""))

    def _taken(self, reason: str) -> None:
        """The core has a device of this name. What it proposed may be what the core has; else only an earlier run can
        have made it, or its own request whose answer was lost."""
        own = self._fleet.secrets.own_credentials(self.plan)
        if own is not None:
            self.credentials, self._is_guess = own, True
            self._fleet.tally.count("own credentials tried")
            self._to(Event.GRANTED)
            self._fleet.granted(self, self._asked_s, self._powered_s)
            self._try()
        elif self._may_exist:
            self._give_up(f"{reason} after its answer was lost; the profile must allow replay")
        else:
            self._to(Event.TAKEN)

    def _put_off(self, reason: str, retry_after_s: float | None) -> None:
        self._reason = reason
        self._to(Event.PUT_OFF)
        self._come_back(retry_after_s)

    # ends

    def _disowned(self, reason: str) -> None:
        """Its credentials are not valid."""
        self._drop()
        if self._is_from_before:  # another core, or another database: it starts anew
            self._is_from_before = False
            self.credentials = None
            self._to(Event.DISOWNED)
            self._try()
        elif self._is_guess:
            self._to(Event.TAKEN)
        else:
            self._give_up(f"its credentials are refused: {reason}")

    def _refused_as_expected(self) -> None:
        self._to(Event.EXPECTED)
        self._fleet.faulted(Fault.WRONG_SECRET)

    def _give_up(self, reason: str) -> None:
        self._drop()
        self._to(Event.GIVE_UP)
        self._fleet.clock.cancel(self)
        self._fleet.tally.fail(self.plan.name, reason)

    def _no_way_out(self, error: OSError) -> None:
        limit = limit_of(error)
        if limit is not None:
            self._fleet.limited(limit)
        self._drop()
        self.broken(limit or f"cannot connect: {error.strerror}")

    # small things

    def _come_back(self, retry_after_s: float | None) -> None:
        self._fails += 1
        draw = self._fleet.random()
        wait_s = backoff_s(self._fails, draw) if retry_after_s is None else told_wait_s(retry_after_s, draw)
        if retry_after_s is not None:
            self._fleet.tally.count("told to wait")
        self._fleet.clock.after(wait_s, self)

    def _sleep_until_report(self) -> None:
        if self._has_room:
            self._fleet.room.rest(self)
        self._fleet.clock.after(min(PING_S, max(0.0, self._next_report_s - self._fleet.clock.now_s)), self)

    def _to(self, event: Event) -> None:
        before, self.state = self.state, NEXT[self.state, event]
        self._fleet.moved(self, before)

    def _drop(self, *, abruptly: bool = False) -> None:
        self._drop_link(abruptly=abruptly)
        self._release()

    def _drop_link(self, *, abruptly: bool = False) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close(abruptly=abruptly)

    def _release_link(self) -> None:
        """The link has ended by itself."""
        self._drop_link(abruptly=True)
        self._release()

    def _release(self) -> None:
        if self._has_room:
            self._has_room = False
            self._fleet.room.busy(self)
            self._fleet.room.release()

    @property
    def has_certificate(self) -> bool:
        return self.plan.kind is Kind.X509 and isinstance(self.credentials, X509Certificate)
