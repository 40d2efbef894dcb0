import { Rocket, RotateCw, Search } from 'lucide-react';
import { useState } from 'react';
import { useCoolifyApplications, type CoolifyApplication } from '@/api/coolify';
import { useRememberApplication } from '@/api/deployments';
import { Badge } from '@/ui/badge';
import { Button } from '@/ui/button';
import { Dialog } from '@/ui/dialog';
import { ErrorNote } from '@/ui/error-state';
import { Input } from '@/ui/input';
import { SkeletonRows } from '@/ui/skeleton';
import { StatusDot } from '@/ui/status';
import { toast } from '@/ui/toast';
import { Visible } from '../review/visible';
import { ConnectionError } from './connection';
import { applicationStatus, foundApplications } from './words';

/** From how many applications on there is something to search. */
const MANY = 6;

/** Coolify's applications to choose from, those of the same repository first. */
export function ApplicationPicker({
  environmentId,
  chosen,
  onChosen,
}: {
  environmentId: string;
  chosen: string | null;
  onChosen?: (() => void) | undefined;
}) {
  const applications = useCoolifyApplications(environmentId);
  const remember = useRememberApplication(environmentId);
  const [search, setSearch] = useState('');
  if (applications.isPending) return <SkeletonRows rows={3} label="Loading Coolify’s applications" />;
  if (applications.data === undefined) {
    return (
      <div className="flex flex-col items-start gap-2">
        <ConnectionError error={applications.error} />
        <Button
          size="sm"
          icon={RotateCw}
          busy={applications.isFetching}
          onClick={() => void applications.refetch()}
        >
          Retry
        </Button>
      </div>
    );
  }
  const all = applications.data;
  const found = foundApplications(all, search);
  if (all.length === 0) {
    return (
      <div className="flex flex-col items-start gap-2 text-sm text-fg-2">
        <p>
          Coolify shows no application to this token. Make one there from this repository, or check of which
          team the token is.
        </p>
        <Button
          size="sm"
          icon={RotateCw}
          busy={applications.isFetching}
          onClick={() => void applications.refetch()}
        >
          Look again
        </Button>
      </div>
    );
  }
  const choose = (one: CoolifyApplication) =>
    remember.mutate(one.id, {
      onSuccess: () => {
        if (onChosen) toast.ok(`${one.name} is remembered for this environment`);
        onChosen?.();
      },
    });
  return (
    <div className="flex flex-col gap-2">
      {all.length >= MANY && (
        <Input
          icon={Search}
          type="search"
          aria-label="Search the applications"
          placeholder="Search the applications"
          value={search}
          onChange={(event) => setSearch(event.target.value)}
        />
      )}
      {remember.isError && <ConnectionError error={remember.error} />}
      {found.length === 0 && (
        <p role="status" className="py-4 text-center text-sm text-fg-2">
          No application fits “{search.trim()}”.
        </p>
      )}
      {found.length > 0 && (
        <ul
          aria-label="Applications"
          className="max-h-80 divide-y divide-line overflow-y-auto rounded-md border border-line bg-surface"
        >
          {found.map((one) => (
            <li key={one.id}>
              <Choice
                application={one}
                chosen={one.id === chosen}
                busy={remember.isPending}
                onChoose={() => choose(one)}
              />
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

function Choice({
  application,
  chosen,
  busy,
  onChoose,
}: {
  application: CoolifyApplication;
  chosen: boolean;
  busy: boolean;
  onChoose: () => void;
}) {
  const { kind, word } = applicationStatus(application);
  const { name, branch, repository, matches } = application;
  return (
    <button
      type="button"
      aria-pressed={chosen}
      disabled={busy}
      onClick={onChoose}
      className="flex w-full min-w-0 items-start gap-2.5 px-3 py-2 text-left hover:bg-hover focus-inset disabled:opacity-60 aria-pressed:bg-accent-soft pointer-coarse:py-3"
    >
      <StatusDot kind={kind} label={word} className="mt-1" />
      <span className="min-w-0 flex-1">
        <span className="flex min-w-0 flex-wrap items-center gap-x-2 gap-y-0.5">
          <span className="min-w-0 truncate text-sm font-medium">
            <Visible text={name} />
          </span>
          {matches && <Badge tone="accent">this repository</Badge>}
        </span>
        <span className="block truncate font-mono text-xs text-fg-3">
          <Visible text={[branch ?? 'no branch', repository].filter(Boolean).join(' · ')} />
        </span>
      </span>
    </button>
  );
}

/** Asks which application an environment's work goes to, where one is remembered already. */
export function ChangeApplication({
  environmentId,
  chosen,
  chosenName,
  onClose,
}: {
  environmentId: string;
  chosen: string;
  chosenName: string;
  onClose: () => void;
}) {
  const forget = useRememberApplication(environmentId);
  return (
    <Dialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title="Which application?"
      description="It is remembered for all sessions of this environment."
      footer={
        <>
          <Button
            variant="ghost"
            busy={forget.isPending}
            onClick={() => forget.mutate(null, { onSuccess: onClose })}
            className="mr-auto"
          >
            Forget {chosenName}
          </Button>
          <Button onClick={onClose}>Cancel</Button>
        </>
      }
    >
      {forget.isError && <ErrorNote error={forget.error} className="mb-2" />}
      <ApplicationPicker environmentId={environmentId} chosen={chosen} onChosen={onClose} />
    </Dialog>
  );
}

/** Where none is chosen yet. */
export function FirstApplication({ environmentId }: { environmentId: string }) {
  return (
    <div className="flex flex-col gap-2">
      <p className="flex items-start gap-2 text-sm text-fg-2">
        <Rocket aria-hidden className="mt-0.5 size-4 shrink-0 text-fg-3" />
        Which of Coolify’s applications is made from this work? It is remembered for the environment.
      </p>
      <ApplicationPicker environmentId={environmentId} chosen={null} />
    </div>
  );
}
