"""`/usage/{tenant}`: what a tenant used on a day (contract, section 3, Operations)."""

from datetime import UTC, date, datetime

import orjson

from common.domain.errors import ValidationFailed
from common.domain.ids import TenantId
from orchestrator.auth.caller import Access
from orchestrator.http.base import ApiHandler
from orchestrator.schemas import check_id


class UsageHandler(ApiHandler):
    """`GET /usage/{tenant_id}?date=`: of one UTC day, by default this one."""

    access = Access.ADMIN

    async def get(self, tenant_id: str) -> None:
        tenant = TenantId(check_id(tenant_id, "tenant_id"))
        self.caller.check_whole_tenant(tenant)
        day = self._date()
        used = await self.app.usage.of(tenant, day)
        self.answer(200, orjson.dumps({"tenant_id": tenant, "date": day.isoformat(), **used}))

    def _date(self) -> date:
        given = self.get_query_argument("date", None)
        if given is None:
            return datetime.now(UTC).date()
        try:
            day = date.fromisoformat(given)
        except ValueError:
            day = None
        if day is None or day.isoformat() != given:  # other ways to write it are no dates here
            raise ValidationFailed(errors={"date": ["Must be a date like 2026-01-31."]})
        return day
