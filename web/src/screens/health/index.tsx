import { RotateCw } from 'lucide-react';
import { useReadiness, useHealth, type Health, type IsolationHealth, type RepeatedStep } from '@/api/health';
import type { Finding } from '@/api/health';
import { useIsAdmin } from '@/api/queries';
import { Section } from '@/app/page';
import type { Shown } from '@/app/status';
import { Badge } from '@/ui/badge';
import { Button } from '@/ui/button';
import { CodeBlock } from '@/ui/code';
import { ErrorState } from '@/ui/error-state';
import { Card, List, ListRow } from '@/ui/list';
import { SkeletonRows } from '@/ui/skeleton';
import { Status } from '@/ui/status';
import { Ago } from '@/ui/time';
import { SettingsPage } from '../settings/frame';
import {
  findingShown,
  healthShown,
  isolationState,
  readinessShown,
  runtimeTitle,
  stepShown,
  worstFirst,
} from './words';

/** How the server is: a line for everybody, all that is known for administrators. */
export function Component() {
  const isAdmin = useIsAdmin();
  return (
    <SettingsPage title="Health" lead="Whether this server can do what it is for.">
      {isAdmin ? <AdminHealth /> : <ForEverybody />}
    </SettingsPage>
  );
}

function ForEverybody() {
  const readiness = useReadiness(0);
  return (
    <Summary
      {...readinessShown(readiness.data, readiness.isError)}
      busy={readiness.isFetching}
      onRefresh={() => void readiness.refetch()}
    >
      {readiness.data?.ready === false && (
        <p className="mt-2 text-sm text-fg-2">
          Who administers this server sees on this page what to do about it.
        </p>
      )}
    </Summary>
  );
}

function Summary({
  kind,
  word,
  sentence,
  busy,
  onRefresh,
  children,
}: Shown & { sentence: string; busy: boolean; onRefresh: () => void; children?: React.ReactNode }) {
  return (
    <Card className="mb-8 flex flex-wrap items-start gap-3 p-4">
      <div role="status" className="min-w-0 flex-1 basis-64">
        <Status kind={kind} word={word} className="text-lg font-semibold text-fg" />
        <p className="mt-1 text-sm wrap-anywhere text-fg-2">{sentence}</p>
        {children}
      </div>
      <Button icon={RotateCw} busy={busy} onClick={onRefresh}>
        Refresh
      </Button>
    </Card>
  );
}

function AdminHealth() {
  const health = useHealth();
  if (health.isPending) return <SkeletonRows rows={5} label="Looking at the server" />;
  if (health.data === undefined) {
    return (
      <ErrorState
        title="The server could not tell how it is"
        error={health.error}
        busy={health.isFetching}
        onRetry={() => void health.refetch()}
      />
    );
  }
  return (
    <HealthShown health={health.data} busy={health.isFetching} onRefresh={() => void health.refetch()} />
  );
}

function HealthShown({ health, busy, onRefresh }: { health: Health; busy: boolean; onRefresh: () => void }) {
  return (
    <>
      <Summary {...healthShown(health.state)} busy={busy} onRefresh={onRefresh}>
        <dl className="mt-3 flex flex-wrap gap-x-6 gap-y-1 text-sm">
          <Fact term="Looked at">
            <Ago at={health.lookedAt} />
          </Fact>
          <Fact term="Craftastic">{health.version}</Fact>
          <Fact term="Database">
            {health.database.kind} {health.database.version}
          </Fact>
        </dl>
      </Summary>
      {health.runtimes.map((runtime) => (
        <Section key={runtime.name} title={runtimeTitle(runtime)}>
          {runtime.reason !== null && (
            <p className="mb-2 text-sm text-fg-2">It is this one because: {runtime.reason}.</p>
          )}
          <List aria-label={`Checks of the runtime ${runtime.name}`}>
            {worstFirst(runtime.findings).map((one) => (
              <FindingRow key={one.name} finding={one} />
            ))}
          </List>
        </Section>
      ))}
      <Section title="Isolation of sandboxes">
        <Isolation isolation={health.isolation} />
      </Section>
      <Section title="What the server repeats">
        <List aria-label="What the server repeats">
          {health.reconcilers.map((one) => (
            <StepRow key={one.name} step={one} />
          ))}
        </List>
      </Section>
    </>
  );
}

function Fact({ term, children }: { term: string; children: React.ReactNode }) {
  return (
    <div className="flex gap-1.5">
      <dt className="text-fg-3">{term}</dt>
      <dd className="text-fg">{children}</dd>
    </div>
  );
}

function FindingRow({ finding }: { finding: Finding }) {
  const { kind, word } = findingShown(finding);
  return (
    <ListRow className="flex-wrap items-start gap-x-3 gap-y-1 py-3 hover:bg-transparent">
      <Status kind={kind} word={word} className="w-20 shrink-0 pt-px font-medium" />
      <div className="min-w-0 flex-1 basis-56">
        <p className="text-base wrap-anywhere">{finding.message}</p>
        <p className="font-mono text-xs text-fg-3">{finding.name}</p>
        {finding.ok !== true && finding.remedy !== null && (
          <div className="mt-2">
            <p className="mb-1 text-sm font-medium">What to do</p>
            <CodeBlock code={finding.remedy} label={`What to do about ${finding.name}`} wrap />
          </div>
        )}
      </div>
    </ListRow>
  );
}

function Isolation({ isolation }: { isolation: IsolationHealth }) {
  const { kind, word, sentence } = isolationState(isolation);
  return (
    <>
      <Card className="p-4">
        <Status kind={kind} word={word} className="font-medium text-fg" />
        <p className="mt-0.5 text-sm text-fg-2">{sentence}</p>
      </Card>
      {isolation.unverified.length > 0 && (
        <List aria-label="Sandboxes that are not verified" className="mt-3">
          {isolation.unverified.map((one) => (
            <ListRow key={one.environmentId} className="flex-wrap items-start py-3 hover:bg-transparent">
              <p className="min-w-0 flex-1 basis-40 text-base font-medium">{one.name}</p>
              <ul className="flex min-w-0 flex-2 basis-56 flex-col gap-1 text-sm">
                {one.open.map((what) => (
                  <li key={what} className="wrap-anywhere">
                    <Badge tone="bad">open</Badge> {what}
                  </li>
                ))}
                {one.unchecked.map((what) => (
                  <li key={what} className="wrap-anywhere">
                    <Badge tone="warn">not checked</Badge> {what}
                  </li>
                ))}
              </ul>
            </ListRow>
          ))}
        </List>
      )}
      {isolation.more > 0 && <p className="mt-2 text-sm text-fg-3">and {isolation.more} more</p>}
    </>
  );
}

function StepRow({ step }: { step: RepeatedStep }) {
  const { kind, word } = stepShown(step);
  return (
    <ListRow className="flex-wrap items-start gap-x-3 gap-y-1 hover:bg-transparent">
      <Status kind={kind} word={word} className="w-36 shrink-0" />
      <div className="min-w-0 flex-1 basis-56">
        <p className="flex flex-wrap gap-x-3 text-sm">
          <span className="font-medium">{step.name}</span>
          <span className="text-fg-3 tabular-nums">
            {step.rounds} rounds, {step.failures} failed
          </span>
          {step.lastAt !== null && <Ago at={step.lastAt} className="ml-auto text-fg-3" />}
        </p>
        {step.lastError !== null && (
          <p className="mt-0.5 font-mono text-xs wrap-anywhere text-warn">{step.lastError}</p>
        )}
      </div>
    </ListRow>
  );
}
