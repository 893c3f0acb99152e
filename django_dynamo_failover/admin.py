"""The health panel in Django's admin."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.http.response import Http404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from .exceptions import SessionUnavailable
from .models import FailoverHealth
from .panel import passes
from .panel.actions import ACTIONS, ActionFailed
from .panel.facts import PATIENCE_SECONDS, SHORT_PATIENCE_SECONDS, look
from .panel.page import page, wrong

_TEMPLATES = "django_dynamo_failover"
_NAME = "django_dynamo_failover_failoverhealth"

#: What the admin's log has as the object of each action. There is no table to have it in.
_SELF = FailoverHealth(pk=1)

View = Callable[..., HttpResponseBase]


@admin.register(FailoverHealth)
class FailoverHealthAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """The panel stands where other models have the list of their objects."""

    def get_urls(self) -> list[URLPattern]:
        """Return the panel, what it refreshes itself from, and its actions."""
        return [
            path("", self._shown(self.changelist_view), name=f"{_NAME}_changelist"),
            path("sections/", self._shown(self.sections_view), name=f"{_NAME}_sections"),
            path(
                "<slug:name>/", self.admin_site.admin_view(self.action_view), name=f"{_NAME}_action"
            ),
        ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: there is nothing to add."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: there is nothing to change."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: there is nothing to delete."""
        return False

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Tell whether a user may do more than look."""
        return bool(request.user.has_perm("django_dynamo_failover.operate_failoverhealth"))

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the panel."""
        context = {
            **self.admin_site.each_context(request),
            "title": "Session failover",
            "opts": self.opts,
            "sections_url": reverse(f"{self.admin_site.name}:{_NAME}_sections"),
            **self._sections(request),
            **(extra_context or {}),
        }
        response = TemplateResponse(request, f"{_TEMPLATES}/panel.html", context)
        self._give_pass(request, response)
        return response

    def sections_view(self, request: HttpRequest) -> HttpResponse:
        """Show what changes of the panel, for it to refresh itself."""
        context = self._sections(request)
        response = TemplateResponse(request, f"{_TEMPLATES}/sections.html", context)
        self._give_pass(request, response)
        return response

    def action_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """Ask before an action, and do it by POST."""
        if not (self.has_view_permission(request) and self.has_operate_permission(request)):
            raise PermissionDenied
        if name not in ACTIONS:
            raise Http404
        action = ACTIONS[name]
        form = action.form(request.POST if request.method == "POST" else None)
        context = {
            **self.admin_site.each_context(request),
            "title": action.label,
            "opts": self.opts,
            "action": action,
            "form": form,
            "panel_url": self._url,
        }
        if request.method == "POST" and form.is_valid():
            try:
                outcome = action.run(form.cleaned_data)
            except (ActionFailed, ImproperlyConfigured, ImportError) as error:
                self._log(request, f"{action.label}: {error}")
                self.message_user(request, str(error), messages.ERROR)
                return HttpResponseRedirect(self._url)
            self._log(request, f"{action.label}: {outcome.message}")
            if outcome.report is None:
                self.message_user(request, outcome.message, messages.SUCCESS)
                return HttpResponseRedirect(self._url)
            context |= {"outcome": outcome}
        return TemplateResponse(request, f"{_TEMPLATES}/action.html", context)

    @property
    def _url(self) -> str:
        return reverse(f"{self.admin_site.name}:{_NAME}_changelist")

    def _shown(self, view: View) -> View:
        """Return a view of the admin that whoever has a pass sees also while no tier answers."""
        usual = self.admin_site.admin_view(view)

        @login_not_required  # the view asks for that itself, and a middleware would have no answer
        def show(request: HttpRequest) -> HttpResponseBase:
            if not passes.is_session_lost(request):
                return usual(request)
            user = passes.holder(request)
            if user is None or request.method not in ("GET", "HEAD"):
                raise SessionUnavailable("no tier can answer, and there is no pass to the panel")
            request.user = user
            request.session.do_without()  # type: ignore[attr-defined]
            response = view(request)
            response["Cache-Control"] = "no-store"
            return response

        return show

    def _sections(self, request: HttpRequest) -> dict[str, Any]:
        if not self.has_view_permission(request):
            raise PermissionDenied
        lost = passes.is_session_lost(request)
        context: dict[str, Any] = {
            "actions": [
                (name, action.label, reverse(f"{self.admin_site.name}:{_NAME}_action", args=[name]))
                for name, action in ACTIONS.items()
            ]
            if self.has_operate_permission(request) and not lost
            else [],
        }
        try:
            known = look(SHORT_PATIENCE_SECONDS if lost else PATIENCE_SECONDS)
            return context | page(known, session_lost=lost)
        except (ImproperlyConfigured, ImportError) as error:  # BOTO_SESSION is imported
            return context | wrong(str(error))

    def _give_pass(self, request: HttpRequest, response: HttpResponse) -> None:
        if not passes.is_session_lost(request):
            passes.give(request, response, self._url)

    def _log(self, request: HttpRequest, message: str) -> None:
        self.log_change(request, _SELF, message)
