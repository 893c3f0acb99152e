"""What happens to the two datacenters, and what must hold after each blow."""

import time
from collections.abc import Callable
from statistics import quantiles

import requests

from shop.demo.browser import Browser
from shop.demo.datacenter import Datacenter
from shop.demo.stage import Stage
from shop.demo.timeline import Act, Broken, Timeline, duration
from shop.people import MANAGER, PASSWORD, PINS

SLACK = 2.0  # seconds past a bound for a busy machine: writes are late by a tick of the writer
ASKED = 6  # how often a site must say the same: any of its processes may answer


class Story:
    """The scenes, in order. Each plays on what the one before has left."""

    def __init__(self, stage: Stage, hits: int) -> None:
        self.stage = stage
        self.hits = hits
        self.user = Browser()
        self.cart: dict[str, int] = {}
        self.seller: str | None = None
        self.changed_at = 0.0
        self.cookie = ""

    @property
    def scenes(self) -> list[tuple[str, Callable[[Act], None]]]:
        """Titles and scenes."""
        if self.stage.real:
            blow = ("East's memcached is killed (-9) and restarted", self.lose_memcached)
        else:
            blow = ("East's hot tier loses all it holds", self.empty_hot_tier)
        return [
            ("The manager logs in at east", self.login),
            ("Page hits at east", self.page_hits),
            ("The cart fills", self.fill_cart),
            blow,
            ("East dies: kill -9 to all of it", self.east_dies),
            ("The same cookie goes to west", self.west_answers),
            ("Grace takes over at west with her PIN; the cart grows", self.grace_takes_over),
            ("East is rebuilt, with nothing in its hot tier", self.east_is_rebuilt),
            ("East is cut off; Linus takes over at west, the cart grows", self.east_is_cut_off),
            ("East comes back with a stale cache", self.east_comes_back),
            ("Logout at west", self.logout),
            ("No answer but the logout took the cookie away", self.cookie_was_safe),
        ]

    def play(self, timeline: Timeline) -> bool:
        """Play until the end or until a scene does not hold; return whether all did."""
        return all(timeline.play(title, scene) for title, scene in self.scenes)

    # --- Scenes -------------------------------------------------------------------------------

    def login(self, act: Act) -> None:
        """A login is durable before the browser has its cookie."""
        page = self.user.login(self.stage.east.url, MANAGER, PASSWORD)
        act.expect("Check out" in page.text or "Nothing yet" in page.text, "no till after login")
        self.cookie = self.user.cookie or ""
        act.expect(bool(self.cookie), "the login gave no session cookie")
        act.expect(
            self.stage.cold.has_session(self.cookie),
            "the browser had its cookie before DynamoDB had the login",
        )
        self._expect_intact(act, self.stage.east)
        act.fact("DynamoDB had the login before the browser had its cookie")

    def page_hits(self, act: Act) -> None:
        """A page hit is one round trip to the hot tier, and no DynamoDB request."""
        east, took = self.stage.east, []
        before, hot_before = self.stage.cold.requests(), self._hot_gets()
        # A lease is renewed in its last third; stop before that, even on a slow machine.
        until = time.monotonic() + self.stage.lease / 2
        for _ in range(self.hits):
            self.user.get(f"{east.url}/")
            took.append(self.user.last_ms)
            if time.monotonic() > until and len(took) >= 20:
                break
        cost = self.stage.cold.requests() - before
        percentiles = quantiles(took, n=100)
        act.figure("hits", len(took))
        act.figure("p50_ms", percentiles[49])
        act.figure("p99_ms", percentiles[98])
        act.fact(
            f"{len(took)} pages: p50 {duration(percentiles[49])}, p99 {duration(percentiles[98])}"
        )
        if self.stage.real:
            gets = (self._hot_gets() - hot_before) / len(took)
            act.figure("memcached_gets_per_page", gets)
            act.fact(f"memcached gets: {gets:.1f} a page; DynamoDB requests: {cost.total()}")
        act.expect(not cost, f"page hits asked DynamoDB: {dict(cost)}")

    def fill_cart(self, act: Act) -> None:
        """Changes wait in east's hot tier and in its memory; DynamoDB hears of them later."""
        self._add(self.stage.east, "espresso", "espresso", "croissant", "mug")
        self._expect_intact(act, self.stage.east)
        act.fact(f"DynamoDB may hear of it later, within {self.stage.lease:g} s")

    def lose_memcached(self, act: Act) -> None:
        """Pending changes survive their memcached in the memory of the process."""
        east = self.stage.east
        east.hot.kill()
        self._look_during_outage(act, "while it is dead")
        east.hot.start()
        self._look_during_outage(act, "restarted, empty")
        self._await_cold(act)
        self._await_intact(act, east)
        self._expect_intact(act, east)

    def empty_hot_tier(self, act: Act) -> None:
        """The same, as far as a hot tier inside the web process can be lost."""
        east = self.stage.east
        Browser().post(f"{east.url}/demo/empty-hot-tier")
        self._look_during_outage(act, "right after that")
        self._await_cold(act)
        self._await_intact(act, east)
        self._expect_intact(act, east)

    def east_dies(self, act: Act) -> None:
        """Nothing of east is left but what DynamoDB has."""
        act.expect(
            self.stage.cold.holds(self.cookie, self.changed_at), "DynamoDB does not have the cart"
        )
        self.stage.east.kill()
        try:
            Browser().get(f"{self.stage.east.url}/ping")
        except requests.ConnectionError:
            act.fact("DynamoDB had the cart; that was checked first, because a change")
            act.fact("dies with web and memcached if both die before DynamoDB has it")
            return
        act.expect(False, "east still answers")

    def west_answers(self, act: Act) -> None:
        """West has never seen this session."""
        began = time.perf_counter()
        self.user.get(f"{self.stage.west.url}/")
        act.fact(f"the first page takes {duration(1000 * (time.perf_counter() - began))}")
        self._expect_intact(act, self.stage.west)

    def grace_takes_over(self, act: Act) -> None:
        """Life goes on at west."""
        self._switch(self.stage.west, "Grace")
        self._add(self.stage.west, "flat-white", "beans-250")
        self._expect_intact(act, self.stage.west)

    def east_is_rebuilt(self, act: Act) -> None:
        """East learns of it from DynamoDB."""
        self.stage.east.start()
        self._await_cold(act)
        self._expect_intact(act, self.stage.east)

    def east_is_cut_off(self, act: Act) -> None:
        """East is frozen with its hot tier full, and misses what happens."""
        self.stage.east.freeze()
        self._add(self.stage.west, "filter-papers")
        # Who sells is a write-through key: it takes the cart along, at once.
        self._switch(self.stage.west, "Linus")
        self._expect_intact(act, self.stage.west)
        act.expect(
            self.stage.cold.holds(self.cookie, self.changed_at), "the switch did not reach DynamoDB"
        )

    def east_comes_back(self, act: Act) -> None:
        """An old entry is served for one lease at most."""
        east = self.stage.east
        east.thaw()
        waited = self._await_intact(act, east)
        act.figure("stale_s", waited)
        self._expect_intact(act, east)
        if waited > 0.1:
            act.fact(f"the old cart for {waited:.1f} s, then the one from west")
        else:
            act.fact("the cart from west at the first page")
        act.fact(f"bound: one lease, {self.stage.lease:g} s here")

    def logout(self, act: Act) -> None:
        """A logout is final: at once where it happened, within one lease elsewhere."""
        self.user.logout(self.stage.west.url)
        began = time.monotonic()
        for _ in range(ASKED):
            who = Browser(self.cookie).status(self.stage.west.url)["user"]
            act.expect(who is None, "west still knows the old cookie")
        act.fact("the old cookie at west: nobody, at once")
        act.waiting("until east's lease ends")
        waited = self._until(
            lambda: Browser(self.cookie).status(self.stage.east.url)["user"] is None, began
        )
        act.expect(waited is not None, "east still knows the old cookie after its lease")
        act.figure("dead_at_east_s", waited)
        act.fact(f"the old cookie at east: nobody, {waited:.1f} s after the logout")
        for site in self.stage.sites * ASKED:
            who = Browser(self.cookie).status(site.url)["user"]
            act.expect(who is None, f"the session came back at {site.name}")
        cold = self.stage.cold
        act.expect(not cold.has_session(self.cookie), "the item is still in DynamoDB")
        act.expect(cold.has_revocation(self.cookie), "no revocation is in DynamoDB")

    def cookie_was_safe(self, act: Act) -> None:
        """An outage never takes a cookie away."""
        taken = self.user.cookie_taken
        act.expect(not taken, f"the cookie was taken away by {', '.join(taken)}")
        act.figure("answers", self.user.answers)
        act.fact(f"{self.user.answers} answers from both sites, dead tiers and all")

    # --- Means --------------------------------------------------------------------------------

    def _add(self, site: Datacenter, *skus: str) -> None:
        self.changed_at = time.time()
        self.user.add(site.url, *skus)
        for sku in skus:
            self.cart[sku] = self.cart.get(sku, 0) + 1

    def _switch(self, site: Datacenter, name: str) -> None:
        self.changed_at = time.time()
        self.user.switch(site.url, name, PINS[name])
        self.seller = name

    def _is_intact(self, status: dict) -> bool:
        return (
            status["user"] == MANAGER
            and status["associate"] == self.seller
            and status["cart"]["items"] == self.cart
        )

    def _look_during_outage(self, act: Act, when: str) -> None:
        status = self.user.status(self.stage.east.url)
        act.expect(status["user"] == MANAGER, f"logged out at east {when}")
        cart = "cart intact" if self._is_intact(status) else "cart as DynamoDB had it"
        act.fact(f"{when}: logged in, {cart}, answer in {duration(self.user.last_ms)}")

    def _expect_intact(self, act: Act, site: Datacenter, when: str = "") -> None:
        """See the same in the JSON and on the page, from several processes of the site."""
        for _ in range(ASKED):
            status = self.user.status(site.url)
            act.expect(status["site"] == site.name, f"{status['site']} answered for {site.name}")
            act.expect(status["user"] == MANAGER, f"logged out at {site.name}")
            act.expect(
                self._is_intact(status),
                f"{site.name} shows {status.get('associate')} and {status.get('cart')}; "
                f"should be {self.seller} and {self.cart}",
            )
        page = self.user.get(f"{site.url}/").text
        shown = (status["cart"]["total"] if self.cart else "Nothing yet") in page
        act.expect(shown and (self.seller or MANAGER) in page, f"{site.name}'s page differs")
        if self.cart:
            act.figure("cart_cents", status["cart"]["total_cents"])
            act.fact(
                f"{site.name}{when and ' ' + when}: {self.seller or MANAGER} sells, "
                f"{sum(self.cart.values())} in the cart, {status['cart']['total']}"
            )

    def _await_intact(self, act: Act, site: Datacenter) -> float:
        """Wait until a site shows the last change; nobody may be logged out meanwhile."""
        act.waiting(f"until {site.name} has caught up")

        showed_it: set[int] = set()  # since one last did not

        def all_show_it() -> bool:
            for _ in range(ASKED):
                status = self.user.status(site.url)
                act.expect(status["user"] == MANAGER, f"logged out at {site.name}")
                if not self._is_intact(status):
                    showed_it.clear()
                    return False
                showed_it.add(status["pid"])
            # The kernel chooses who answers: some process may have to wait for its turn.
            return len(showed_it) == site.web.workers

        waited = self._until(all_show_it)
        if waited is None:
            raise Broken(f"{site.name} still shows the old cart after its lease")
        return waited

    def _await_cold(self, act: Act) -> None:
        """Wait until DynamoDB has the last change, and hold the engine to its bound."""
        act.waiting("until DynamoDB has the cart")
        waited = self._until(lambda: self.stage.cold.holds(self.cookie, self.changed_at))
        act.expect(waited is not None, "the cart did not reach DynamoDB within the lease")
        act.figure("until_in_dynamodb_s", waited)
        act.fact(f"DynamoDB has the cart {waited:.1f} s later")

    def _until(self, holds: Callable[[], bool], began: float | None = None) -> float | None:
        """Poll; return the seconds it took, None when it took longer than one lease."""
        began = time.monotonic() if began is None else began
        while not holds():
            if time.monotonic() - began > self.stage.lease + SLACK:
                return None
            time.sleep(0.05)
        return time.monotonic() - began

    def _hot_gets(self) -> int:
        return self.stage.east.hot.commands()["get"] if self.stage.east.hot else 0
