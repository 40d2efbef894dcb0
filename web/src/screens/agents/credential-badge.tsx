import type { Agent, AgentType } from '@/api/agents';
import { Badge } from '@/ui/badge';
import { enters, kindOf } from './words';

/** Whether an agent has a credential, and whether that enters the sandbox. */
export function CredentialBadge({ agent, types }: { agent: Agent; types: readonly AgentType[] }) {
  if (!agent.credential_type) return <Badge tone="warn">no credential</Badge>;
  const kind = kindOf(agent, types);
  return (
    <>
      <Badge tone="ok">{kind?.title ?? agent.credential_type}</Badge>
      {enters(kind) && <Badge tone="warn">enters the sandbox</Badge>}
    </>
  );
}
