import { Download, ScrollText, ShieldCheck } from 'lucide-react';
import { useState } from 'react';
import { useSearchParams } from 'react-router';
import {
  auditFile,
  useAuditLog,
  useCheckChain,
  useUsers,
  type AuditFilter,
  type ChainCheck,
  type ForeignEvent,
  type Person,
} from '@/api/account';
import { Section } from '@/app/page';
import { Button } from '@/ui/button';
import { CodeBlock } from '@/ui/code';
import { EmptyState } from '@/ui/empty';
import { ErrorNote, ErrorState } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { Card } from '@/ui/list';
import { Notice } from '@/ui/notice';
import { Select, type Option } from '@/ui/select';
import { SkeletonRows } from '@/ui/skeleton';
import { toast } from '@/ui/toast';
import { DOMAINS } from '../account/deeds';
import { EventList, More } from '../account/event-list';
import { AdminPage } from './frame';

/** Select needs a value for everything. */
const ALL = 'all';

export function Component() {
  return (
    <AdminPage
      title="Audit log"
      lead="What everybody did. The log is only ever added to; each event's hash covers the one before it."
    >
      <Whole />
      <Log />
    </AdminPage>
  );
}

/** What is asked of the whole log: its soundness, and its file. */
function Whole() {
  const check = useCheckChain();
  const [saving, setSaving] = useState(false);
  const save = () => {
    setSaving(true);
    auditFile()
      .then(saveAs)
      .catch((error: unknown) => toast.failed('The log was not saved', error))
      .finally(() => setSaving(false));
  };
  return (
    <Section title="The whole log">
      <Card className="flex flex-col gap-3 p-4">
        <div className="flex flex-wrap gap-2">
          <Button icon={ShieldCheck} busy={check.isPending} onClick={() => check.mutate()}>
            Check the chain
          </Button>
          <Button icon={Download} busy={saving} onClick={save}>
            Save as a file
          </Button>
        </div>
        {check.isError && <ErrorNote error={check.error} />}
        {check.data && <Verdict found={check.data} />}
      </Card>
    </Section>
  );
}

function saveAs(file: Blob): void {
  const address = URL.createObjectURL(file);
  const link = document.createElement('a');
  link.href = address;
  link.download = 'audit.jsonl';
  link.click();
  // The browser has taken it by then.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function Verdict({ found }: { found: ChainCheck }) {
  if (!found.ok) {
    return (
      <div role="alert" className="rounded-md border border-bad/30 bg-bad-soft px-3 py-2.5 text-sm">
        <p className="font-medium text-fg">
          The chain is broken at number {found.brokenAt}: {found.reason}.
        </p>
        <p className="text-fg-2">
          Somebody changed the database past the server, or a part of it was lost. {found.checked} events
          before it are sound.
        </p>
      </div>
    );
  }
  return (
    <div className="flex flex-col gap-2">
      <Notice kind="ok">
        All {found.checked} events are sound: nothing was changed, removed or put elsewhere.
      </Notice>
      {found.head && (
        <>
          <p className="text-sm text-fg-2">
            Note the last event&rsquo;s number and hash outside of this server. Who can write the database
            could make all of the log anew, but not with this hash.
          </p>
          <CodeBlock
            code={`${found.head.seq} ${found.head.hash}`}
            label="The last event's number and hash"
            wrap
          />
        </>
      )}
    </div>
  );
}

function peopleOptions(people: readonly Person[], chosen: string | null): Option<string>[] {
  const known = people.map((one) => ({ value: one.id, label: one.email }));
  // Chosen by a link, and on a later page of the list, or without an account by now.
  const other = chosen !== null && !people.some((one) => one.id === chosen);
  return [
    { value: ALL, label: 'Everybody' },
    ...known,
    ...(other ? [{ value: chosen, label: `User ${chosen.slice(0, 8)}` }] : []),
  ];
}

const KINDS: readonly Option<string>[] = [
  { value: ALL, label: 'Everything' },
  ...Object.entries(DOMAINS).map(([value, label]) => ({ value, label })),
];

const ID = /^[0-9a-f-]{36}$/u;

/** The filter in the address: it can be linked, and what is no filter is left out. Pure. */
export function filterOf(params: URLSearchParams): AuditFilter {
  const by = params.get('by') ?? '';
  const what = params.get('what') ?? '';
  return {
    ...(ID.test(by) ? { actorId: by } : {}),
    ...(Object.hasOwn(DOMAINS, what) ? { action: what } : {}),
  };
}

function Log() {
  const [params, setParams] = useSearchParams();
  const filter = filterOf(params);
  const log = useAuditLog(filter);
  const users = useUsers();
  const events = log.data?.pages.flatMap((page) => page.events) ?? [];
  const choose = (name: 'by' | 'what') => (value: string) =>
    setParams(
      (before) => {
        const next = new URLSearchParams(before);
        if (value === ALL) next.delete(name);
        else next.set(name, value);
        return next;
      },
      { replace: true },
    );
  return (
    <Section title="Events">
      <div className="mb-4 grid gap-3 sm:grid-cols-2">
        <Field label="Who">
          {(control) => (
            <Select
              {...control}
              value={filter.actorId ?? ALL}
              onChange={choose('by')}
              options={peopleOptions(
                users.data?.pages.flatMap((page) => page.users) ?? [],
                filter.actorId ?? null,
              )}
            />
          )}
        </Field>
        <Field label="What">
          {(control) => (
            <Select {...control} value={filter.action ?? ALL} onChange={choose('what')} options={KINDS} />
          )}
        </Field>
      </div>
      {log.isPending && <SkeletonRows rows={6} label="Loading the log" />}
      {log.isError && log.data === undefined && (
        <ErrorState
          title="The log could not be read"
          error={log.error}
          busy={log.isFetching}
          onRetry={() => void log.refetch()}
        />
      )}
      {log.data !== undefined && events.length === 0 && (
        <EmptyState icon={ScrollText} title="No such events" className="rounded-lg border border-line py-10">
          Nothing in the log fits what is chosen above.
        </EmptyState>
      )}
      {events.length > 0 && (
        <EventList
          events={events}
          label="Audit log"
          who={(event) => <Who event={event} onChoose={choose('by')} />}
        />
      )}
      <More query={log} />
    </Section>
  );
}

function Who({ event, onChoose }: { event: ForeignEvent; onChoose: (id: string) => void }) {
  const { actorId, actorEmail } = event;
  if (actorId === null) return <span className="py-1">the server, or nobody signed in</span>;
  const name = actorEmail ?? `a deleted user (${actorId.slice(0, 8)})`;
  return (
    <button
      type="button"
      title={`Only what ${name} did`}
      onClick={() => onChoose(actorId)}
      className="rounded-sm py-1 break-all text-fg-2 underline-offset-2 hover:text-fg hover:underline pointer-coarse:min-h-11"
    >
      {name}
    </button>
  );
}
