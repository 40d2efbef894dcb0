import { Bot, Plus, TriangleAlert } from 'lucide-react';
import { Link, useNavigate } from 'react-router';
import { useAgents, useAgentTypes, type Agent, type AgentType, type TypeProblem } from '@/api/agents';
import { useAgentDialog } from '@/app/create';
import { Badge } from '@/ui/badge';
import { Button } from '@/ui/button';
import { Collapsible } from '@/ui/collapsible';
import { EmptyState } from '@/ui/empty';
import { ErrorNote, ErrorState } from '@/ui/error-state';
import { List, ListRow } from '@/ui/list';
import { SkeletonRows } from '@/ui/skeleton';
import { Ago } from '@/ui/time';
import { toast } from '@/ui/toast';
import { SettingsPage } from '../settings/frame';
import { CreateAgent } from './create';
import { CredentialBadge } from './credential-badge';
import { TestCredential } from './test';
import { isInstallable, typeOf } from './words';

export function Component() {
  const agents = useAgents();
  const types = useAgentTypes();
  const create = useAgentDialog();
  const navigate = useNavigate();
  const known = types.data?.types ?? [];
  const add = (
    <Button variant="primary" icon={Plus} disabled={known.length === 0} onClick={create.show}>
      New agent
    </Button>
  );
  return (
    <SettingsPage
      title="Agents"
      lead="Programs that work in your sessions by themselves. Each has a name and the credential that it signs in with."
    >
      {agents.isPending && <SkeletonRows rows={2} label="Loading your agents" />}
      {agents.isError && agents.data === undefined && (
        <ErrorState
          title="Your agents could not be read"
          error={agents.error}
          busy={agents.isFetching}
          onRetry={() => void agents.refetch()}
        />
      )}
      {types.isError && <ErrorNote error={types.error} className="mb-4" />}
      {agents.data?.length === 0 && (
        <EmptyState
          icon={Bot}
          title="No agents yet"
          action={add}
          className="rounded-lg border border-line py-10"
        >
          <p>
            Make one with an API key or a login of yours. Then give it a task: it works on a branch of its own
            and asks you before it does what it may not.
          </p>
          {known.length > 0 && (
            <p className="mt-2">Known here: {known.map((one) => one.title).join(', ')}.</p>
          )}
        </EmptyState>
      )}
      {agents.data !== undefined && agents.data.length > 0 && (
        <div className="flex flex-col gap-4">
          <div className="flex justify-end">{add}</div>
          <List aria-label="Agents">
            {agents.data.map((one) => (
              <AgentRow key={one.id} agent={one} types={known} />
            ))}
          </List>
        </div>
      )}
      {types.data?.problems && types.data.problems.length > 0 && <Problems problems={types.data.problems} />}
      {create.open && known.length > 0 && (
        <CreateAgent
          types={known}
          onClose={create.hide}
          onCreated={(agent) => {
            toast.ok(`${agent.name} is made`);
            void navigate(`/agents/${agent.id}`, { replace: true });
          }}
        />
      )}
    </SettingsPage>
  );
}

function AgentRow({ agent, types }: { agent: Agent; types: readonly AgentType[] }) {
  const type = typeOf(agent, types);
  return (
    <ListRow className="flex-wrap items-start py-3">
      <Bot aria-hidden className="mt-0.5 size-4 shrink-0 text-fg-3" />
      <div className="min-w-0 flex-1">
        <p className="flex flex-wrap items-center gap-x-2 gap-y-1">
          <Link
            to={`/agents/${agent.id}`}
            className="min-w-0 truncate rounded-sm text-base font-medium hover:underline"
          >
            {agent.name}
          </Link>
          <CredentialBadge agent={agent} types={types} />
          {type && !isInstallable(type) && <Badge>bring the program along</Badge>}
        </p>
        <p className="mt-0.5 flex flex-wrap gap-x-3 text-sm text-fg-3">
          <span>{type?.title ?? agent.type}</span>
          {agent.model && <span className="font-mono text-xs leading-5">{agent.model}</span>}
          <span>
            Changed <Ago at={agent.updated_at} />
          </span>
        </p>
      </div>
      <TestCredential agent={agent} className="justify-end max-sm:w-full max-sm:justify-start max-sm:pl-7" />
    </ListRow>
  );
}

/** Types that were added to this server and cannot be used, for who administers it. */
function Problems({ problems }: { problems: readonly TypeProblem[] }) {
  return (
    <Collapsible
      title={
        <span className="flex items-center gap-1.5">
          <TriangleAlert aria-hidden className="size-4 text-warn" />
          {problems.length === 1
            ? 'One added type cannot be used'
            : `${problems.length} added types cannot be used`}
        </span>
      }
      className="mt-6"
    >
      <ul className="flex flex-col gap-2 text-sm">
        {problems.map((one) => (
          <li key={`${one.file} ${one.place} ${one.message}`}>
            <span className="font-mono text-xs wrap-anywhere">
              {one.file}
              {one.place !== '' && `: ${one.place}`}
            </span>
            <span className="block wrap-anywhere text-fg-2">{one.message}</span>
          </li>
        ))}
      </ul>
    </Collapsible>
  );
}
