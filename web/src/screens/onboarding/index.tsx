import { ArrowRight, Plus, RotateCw } from 'lucide-react';
import { Link } from 'react-router';
import { useGitHubStatus } from '@/api/github';
import { useReadiness } from '@/api/health';
import { useEnvironments, useMe } from '@/api/queries';
import { Logo } from '@/app/logo';
import { useUser } from '@/auth/session';
import { Button } from '@/ui/button';
import { Checklist, type Step } from '@/ui/checklist';
import { Card } from '@/ui/list';
import { bestOf, environmentStep, githubStep, serverStep } from './checks';

/** The first minutes: what has to be there, whether it is, and what to do where it is not. */
export function Component() {
  const kept = useUser();
  const readiness = useReadiness(0);
  const me = useMe();
  const github = useGitHubStatus();
  const environments = useEnvironments();
  const all = [readiness, me, github, environments];
  const user = me.data ?? kept;
  const server = serverStep(readiness.data, readiness.isError);
  const hub = githubStep(github.data, github.isError);
  const first = environmentStep(environments.data, environments.isError);
  const begun = bestOf(environments.data ?? []);

  const steps: Step[] = [
    { id: 'server', title: 'The server is ready', ...server },
    {
      id: 'account',
      title: 'You have an account',
      ...(me.isError
        ? { state: 'failed', note: 'The server could not tell who you are. Check again.' }
        : { state: 'done', note: `Signed in as ${user.name} (${user.email}).` }),
    },
    {
      id: 'github',
      title: 'Your GitHub account',
      ...hub,
      ...(hub.state === 'waiting' || hub.state === 'failed'
        ? {
            action: (
              <Button asChild>
                <Link to="/settings/github">Connect GitHub</Link>
              </Button>
            ),
          }
        : hub.state === 'skipped'
          ? {
              action: (
                <Button asChild>
                  <Link to="/settings/hosts">Add a git host</Link>
                </Button>
              ),
            }
          : {}),
    },
    {
      id: 'environment',
      title: 'Your first environment',
      ...first,
      action: begun ? (
        <Button asChild variant={first.state === 'done' ? 'primary' : 'secondary'}>
          <Link to={`/e/${begun.id}`}>
            Open {begun.name} <ArrowRight aria-hidden className="size-4" />
          </Link>
        </Button>
      ) : first.state === 'waiting' ? (
        <Button asChild variant="primary">
          <Link to="/?new=environment">
            <Plus aria-hidden className="size-4" /> New environment
          </Link>
        </Button>
      ) : undefined,
    },
  ];
  const done = first.state === 'done' && server.state === 'done';
  return (
    <main className="flex min-h-dvh justify-center bg-canvas px-4 py-10 md:py-20">
      <title>Welcome · Craftastic</title>
      <div className="w-full max-w-xl">
        <Logo className="size-10" />
        <h1 className="mt-5 text-2xl font-semibold tracking-tight">
          {done
            ? 'All is ready'
            : `Welcome${user.name === '' ? '' : `, ${user.name.split(/\s+/u)[0] ?? ''}`}`}
        </h1>
        <p className="mt-1 text-base text-fg-2">
          {done
            ? 'Open your environment and begin a session in it.'
            : 'Four things, and you can begin. What is done already is marked.'}
        </p>
        <Card className="mt-6 p-5 pb-1">
          <Checklist label="To begin" steps={steps} />
        </Card>
        <div className="mt-4 flex flex-wrap items-center justify-between gap-2">
          <Button
            icon={RotateCw}
            busy={all.some((one) => one.isFetching)}
            onClick={() => all.forEach((one) => void one.refetch())}
          >
            Check again
          </Button>
          <Button asChild variant="ghost">
            <Link to="/">
              {done ? 'Go home' : 'Do this later'} <ArrowRight aria-hidden className="size-4" />
            </Link>
          </Button>
        </div>
      </div>
    </main>
  );
}
